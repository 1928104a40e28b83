"""The command line: exit codes, one-line errors, signals, logs. The node itself is a stand-in."""

import logging
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import trio

from millstream.__main__ import main
from millstream.cli.parser import parse
from millstream.cli.serve import LogFormatter, run, settings_from
from millstream.config import SETTINGS, Settings
from millstream.errors import ConfigurationError, DirectoryInUse

SETTINGS_IN_MEMORY = Settings(data=None, in_memory=True)


def millstream(*arguments: str, optimise: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "millstream", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONOPTIMIZE": optimise},
    )


def test_version():
    result = millstream("--version")
    assert (result.returncode, result.stdout) == (0, "millstream 0.1.0\n")


def test_running_without_asserts_is_refused():
    result = millstream("serve", optimise="1")
    assert result.returncode == 2
    assert result.stderr == "millstream: refuses to run under python -O or PYTHONOPTIMIZE\n"


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit) as left:
        parse(["serve", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert all(setting.flag in text for setting in SETTINGS)


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "serve" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--prot", "1"], "unknown argument --prot; did you mean --port?"),
        (["serve", "--prot=1"], "did you mean --port?"),
        (["serve", "--port"], "expected one argument"),
        (["sreve"], "invalid choice: 'sreve'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as left:
        parse(arguments)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_wrong_setting_is_one_line_and_exit_code_2(capsys):
    assert main(["serve", "--port", "x"]) == 2
    assert capsys.readouterr().err == (
        "millstream: --port must be a whole number from 0 to 65535, not 'x'\n"
    )


def test_a_configuration_file_is_read(tmp_path):
    path = tmp_path / "m.toml"
    path.write_text('port = 4000\nallow_host = ["db.test"]\n')
    settings = settings_from(parse(["serve", "--config", str(path), "--port", "5000"]))
    assert (settings.port, settings.allow_host) == (5000, ("db.test",))


def test_a_configuration_file_that_is_not_there_is_said(capsys, tmp_path):
    missing = str(tmp_path / "m.toml")
    assert main(["serve", "--config", missing]) == 2
    assert capsys.readouterr().err.startswith(f"millstream: cannot read {missing}: No such file")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_cleanly(number, capsys):
    cleaned = []

    async def service(settings, on_ready):
        try:
            on_ready("http://127.0.0.1:8000")
            os.kill(os.getpid(), number)
            await trio.sleep_forever()
        finally:
            cleaned.append(settings)

    assert run(SETTINGS_IN_MEMORY, service) == 0
    assert cleaned == [SETTINGS_IN_MEMORY]
    assert capsys.readouterr().out == "millstream is listening on http://127.0.0.1:8000\n"


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (OSError(98, "Address already in use"), 1, "Address already in use"),
        (PermissionError(13, "Permission denied", "d"), 1, "Permission denied: d"),
        (DirectoryInUse("d is held by process 7"), 1, "d is held by process 7"),
        (ConfigurationError("credentials: no keys"), 2, "credentials: no keys"),
    ],
)
def test_a_failed_start_is_one_line_and_an_exit_code(error, exit_code, said, capsys):
    async def service(_settings, _on_ready):
        async with trio.open_nursery():
            raise error

    assert run(SETTINGS_IN_MEMORY, service) == exit_code
    assert capsys.readouterr().err == f"millstream: {said}\n"


def test_a_defect_keeps_its_traceback():
    async def service(_settings, _on_ready):
        raise AssertionError("the tree is wrong")

    with pytest.raises(ExceptionGroup) as caught:
        run(SETTINGS_IN_MEMORY, service)
    assert caught.group_contains(AssertionError, match="the tree is wrong")


def test_a_log_line_is_utc_level_logger_message():
    record = logging.LogRecord("millstream.api", logging.INFO, "", 0, "up %d", (1,), None)
    line = LogFormatter().format(record)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO millstream\.api up 1", line)
    assert line.startswith(time.strftime("%Y-%m-%dT%H:", time.gmtime(record.created)))


def test_importing_the_package_loads_nothing():
    code = "import sys, millstream; print({'trio', 'rich', 'lmdb'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n"


def test_the_facade_knows_every_error():
    import millstream
    from millstream import errors

    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MillstreamError)
    }
    assert classes <= set(dir(millstream))
    assert millstream.DirectoryInUse is DirectoryInUse
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = millstream.nonsense
