"""Reading the conformance suite's report: what is told, and what counts."""

from __future__ import annotations

from millstream.tools.conformance import (
    README,
    main,
    results_of,
    summary,
    supported_operations,
)

SUPPORTED = supported_operations(README.read_text(encoding="utf-8"))


def report(path, *tests):
    """A report about one file: (title, status) of each test."""
    return {
        "testResults": [
            {
                "name": f"/somewhere/suite/tests/{path}",
                "status": "passed",
                "assertionResults": [
                    {"fullName": name, "status": status, "failureMessages": ["Error: no\nat ..."]}
                    for name, status in tests
                ],
            }
        ]
    }


def told(path, *tests, supported=SUPPORTED):
    return summary(results_of(report(path, *tests), supported), supported)


def test_the_readme_says_what_is_supported():
    assert {"PutItem", "Query", "UpdateTable", "ListTagsOfResource"} <= SUPPORTED
    assert "ExecuteStatement" not in SUPPORTED


def test_a_failure_of_what_is_supported_counts():
    lines, failures = told("tier1/putItem/basic.test.ts", ("one", "passed"), ("two", "failed"))
    assert failures == 1
    assert lines[0].split() == ["tier1", "putItem", "1", "passed", "1", "failed"]
    assert "  tier1 putItem: two\n      Error: no" in lines


def test_a_failure_that_several_operations_share_counts():
    _, failures = told("tier3/limits/itemSize.test.ts", ("an item of 400 KB", "failed"))
    assert failures == 1


def test_a_failure_of_what_is_not_supported_is_told_and_does_not_count():
    lines, failures = told(
        "tier3/limits/transactionLimits.test.ts", ("100 actions", "failed"), supported={"PutItem"}
    )
    assert failures == 0
    assert "failed, about operations that are not supported yet:" in lines


def test_it_counts_as_soon_as_the_readme_says_so():
    path = "tier3/error-messages/transactWriteItems.test.ts"
    _, failures = told(path, ("x", "failed"), supported={"TransactWriteItems"})
    assert failures == 1


def test_a_file_that_never_began_is_a_failure():
    broken = report("tier1/query/basic.test.ts")
    broken["testResults"][0].update(status="failed", message="no table")
    _, failures = summary(results_of(broken, SUPPORTED), SUPPORTED)
    assert failures == 1


def test_skipped_tests_are_told():
    lines, failures = told("tier1/scan/basic.test.ts", ("a", "passed"), ("b", "skipped"))
    assert (lines[0].split()[-2:], failures) == (["1", "skipped"], 0)


def test_without_the_suite_it_says_where_it_is(capsys):
    assert main([]) == 2
    assert "github.com/nubo-db/dynamodb-conformance" in capsys.readouterr().err
