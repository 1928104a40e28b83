"""Names of functions, and what requests may say about them."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import Corrupt, InvalidRequest, MalformedRequest, ResourceNotFound
from millstream.lambdas.function_settings import (
    RESERVED_VARIABLES,
    read_code,
    read_configuration,
    read_definition,
)
from millstream.lambdas.functions import (
    Function,
    decode_function,
    encode_function,
    function_arn,
    function_name_of,
)

ROLE = "arn:aws:iam::123456789012:role/service"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
NEEDED = {
    "FunctionName": "f",
    "Role": ROLE,
    "Runtime": "python3.12",
    "Handler": "app.handler",
    "Code": {"ZipFile": b64encode(b"zip").decode()},
}


def name_of(text: str, qualifier: str | None = None) -> str:
    return function_name_of(text, qualifier, "eu-west-1", "123456789012")


def refused(request: dict[str, object], read=read_definition) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(request)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "f",
        "f:$LATEST",
        "123456789012:function:f",
        "123456789012:f",
        "function:f",
        ARN + "f",
        ARN + "f:$LATEST",
        "arn:aws-cn:lambda:cn-north-1:000000000000:function:f",
    ],
)
def test_name_in_all_its_forms(text):
    assert name_of(text) == "f"
    assert name_of(text, "$LATEST") == "f"


@pytest.mark.parametrize("text", ["", "a b", "a/b", "../f", "a:b:c", "a.b", "ü", "f\n", "$LATEST"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(InvalidRequest, match="at 'functionName' failed to satisfy constraint"):
        name_of(text)


def test_name_ends_at_64_characters():
    assert name_of("f" * 64) == "f" * 64
    assert name_of(ARN + "f" * 64) == "f" * 64
    with pytest.raises(InvalidRequest, match="less than or equal to 64"):
        name_of("f" * 65)
    with pytest.raises(InvalidRequest, match="less than or equal to 140"):
        name_of("f" * 141)


def test_there_is_no_version_but_the_latest():
    for text, qualifier in (("f:1", None), ("f", "1"), ("f", "live"), (ARN + "f:prod", None)):
        with pytest.raises(ResourceNotFound, match=r"^Function not found: arn:aws:lambda.*:f:\w+"):
            name_of(text, qualifier)
    with pytest.raises(InvalidRequest, match="does not match the specified qualifier"):
        name_of("f:1", "2")


@given(st.text(max_size=150))
def test_any_text_is_a_proper_name_or_refused(text):
    try:
        name = name_of(text)
    except (InvalidRequest, ResourceNotFound):
        return
    assert 1 <= len(name) <= 64
    assert name.replace("-", "a").replace("_", "a").isalnum() and name.isascii()
    assert name_of(function_arn("eu-west-1", "123456789012", name)) == name


def test_definition_has_lambdas_defaults():
    fields, package = read_definition(NEEDED)
    assert package == b"zip"
    function = Function(namespace="n", name="f", arn="a", **fields)
    assert (function.timeout_seconds, function.memory_mb) == (3, 128)
    assert function.ephemeral_storage_mb == 512
    assert (function.runtime, function.handler, function.role) == (
        "python3.12",
        "app.handler",
        ROLE,
    )
    assert decode_function(encode_function(function)) == function


def test_damaged_definition_is_corrupt():
    with pytest.raises(Corrupt):
        decode_function(b"{}")


def test_everything_that_can_be_said_is_kept():
    fields, _ = read_definition(
        NEEDED
        | {
            "Description": "d",
            "Timeout": 900,
            "MemorySize": 10240,
            "Environment": {"Variables": {"TABLE": "t"}},
            "Tags": {"team": "a"},
            "Architectures": ["arm64"],
            "EphemeralStorage": {"Size": 10240},
            "PackageType": "Zip",
            "Publish": False,
        }
    )
    assert fields == {
        "runtime": "python3.12",
        "handler": "app.handler",
        "role": ROLE,
        "description": "d",
        "timeout_seconds": 900,
        "memory_mb": 10240,
        "environment": {"TABLE": "t"},
        "tags": {"team": "a"},
        "architectures": ("arm64",),
        "ephemeral_storage_mb": 10240,
    }


@pytest.mark.parametrize(
    ("member", "value", "said"),
    [
        ("Timeout", 0, "Value '0' at 'timeout' failed to satisfy constraint: Member must have "),
        ("Timeout", 901, "less than or equal to 900"),
        ("MemorySize", 127, "greater than or equal to 128"),
        ("MemorySize", 10241, "less than or equal to 10240"),
        ("EphemeralStorage", {"Size": 511}, "greater than or equal to 512"),
        ("EphemeralStorage", {"Size": 10241}, "at 'ephemeralStorage.size'"),
        ("EphemeralStorage", {}, "Value null at 'ephemeralStorage.size'"),
        ("Role", "me", "Value 'me' at 'role' failed to satisfy constraint"),
        ("Handler", "a b", "at 'handler'"),
        ("Handler", "h" * 129, "less than or equal to 128"),
        ("Description", "d" * 257, "less than or equal to 256"),
        ("Runtime", "nodejs20.x", "Value nodejs20.x at 'runtime' failed to satisfy constraint"),
        ("Runtime", "python2.7", "at 'runtime'"),
        ("Runtime", None, "Runtime and Handler are mandatory parameters"),
        ("Handler", None, "Runtime and Handler are mandatory parameters"),
        ("Architectures", ["mips"], "[x86_64, arm64]"),
        ("Architectures", [], "greater than or equal to 1"),
        ("PackageType", "Image", "PackageType Image is not supported"),
        ("PackageType", "Rar", "enum value set: [Zip, Image]"),
        ("Environment", {"Variables": {"1": "x"}}, "regular expression pattern"),
        ("Environment", {"Variables": {"AB": "\0"}}, "NUL"),
        ("Environment", {"Other": {}}, "Unknown parameter: Environment.Other"),
        ("Tags", {"aws:x": ""}, "reserved"),
        ("Tags", {"": ""}, "at 'tags'"),
        ("Tags", {str(number): "" for number in range(51)}, "limit: 50"),
        ("Code", {}, "Please provide a source for function code."),
        ("Code", None, "Value null at 'code'"),
        ("Code", {"S3Bucket": "b", "S3Key": "k"}, "Code.S3Bucket is not supported by millstream"),
        ("Code", {"ImageUri": "i"}, "Code.ImageUri is not supported"),
        ("Layers", ["arn"], "Layers is not supported by millstream"),
        ("VpcConfig", {"SubnetIds": ["subnet-1"]}, "VpcConfig is not supported"),
        ("KMSKeyArn", "arn", "KMSKeyArn is not supported"),
        ("DeadLetterConfig", {"TargetArn": "arn"}, "DeadLetterConfig is not supported"),
        ("FileSystemConfigs", [{"Arn": "a"}], "FileSystemConfigs is not supported"),
        ("SnapStart", {"ApplyOn": "PublishedVersions"}, "SnapStart is not supported"),
        ("TracingConfig", {"Mode": "Active"}, "TracingConfig is not supported"),
        ("Publish", True, "there is one version, $LATEST"),
        ("Wish", 1, "Unknown parameter: Wish"),
    ],
)
def test_what_is_refused_and_how(member, value, said):
    assert said in refused(NEEDED | {member: value})


def test_asking_for_nothing_is_no_wish():
    read_definition(
        NEEDED
        | {
            "Layers": [],
            "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
            "DeadLetterConfig": {"TargetArn": ""},
            "KMSKeyArn": "",
            "SnapStart": {"ApplyOn": "None"},
            "TracingConfig": {"Mode": "PassThrough"},
            "ImageConfig": None,
        }
    )


def test_depth_of_a_wish_does_no_harm():
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert "VpcConfig is not supported" in refused(NEEDED | {"VpcConfig": deep})


def test_violations_are_told_together():
    told = refused(NEEDED | {"Timeout": 0, "MemorySize": 1, "Role": None, "Runtime": "x"})
    assert told.startswith("3 validation errors detected: ")


@pytest.mark.parametrize("name", sorted(RESERVED_VARIABLES))
def test_reserved_variables_are_refused(name):
    told = refused(NEEDED | {"Environment": {"Variables": {name: "x"}}})
    assert told.endswith(f"Reserved keys used in this request: {name}")


def test_variables_have_four_kilobytes():
    def of(size: int) -> dict[str, object]:
        # {"AB":"..."} has nine characters round the value.
        return NEEDED | {"Environment": {"Variables": {"AB": "x" * (size - 9)}}}

    read_definition(of(4096))
    assert "4KB" in refused(of(4097))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("Timeout", "3"),
        ("Timeout", True),
        ("Timeout", 3.0),
        ("Role", 1),
        ("Environment", []),
        ("Environment", {"Variables": {"AB": 1}}),
        ("Tags", []),
        ("Code", "zip"),
        ("Code", {"ZipFile": "no base64!"}),
        ("Code", {"ZipFile": 1}),
        ("Architectures", "x86_64"),
    ],
)
def test_wrong_json_type_is_told_as_such(member, value):
    with pytest.raises(MalformedRequest, match=member):
        read_definition(NEEDED | {member: value})


def test_configuration_changes_what_it_names():
    assert read_configuration({"Timeout": 5, "RevisionId": "r"}) == ({"timeout_seconds": 5}, "r")
    assert read_configuration({"Environment": {}}) == ({"environment": {}}, None)
    assert "Unknown parameter: Code" in refused({"Code": {}}, read_configuration)
    assert "Unknown parameter: Tags" in refused({"Tags": {}}, read_configuration)


def test_code_update():
    update = read_code({"ZipFile": "emlw", "DryRun": True, "Architectures": ["arm64"]})
    assert (update.package, update.dry_run, update.revision_id) == (b"zip", True, None)
    assert update.fields == {"architectures": ("arm64",)}
    assert "Please provide a source" in refused({}, read_code)
    assert "S3Key is not supported" in refused({"S3Key": "k"}, read_code)
