"""The credentials file: what is read of it, what is refused, and that no secret is ever shown."""

from __future__ import annotations

import pytest

from millstream.api.credentials import Credential, parse_credentials
from millstream.errors import ConfigurationError

SECRET = "top/secret%(x)s=="
FILE = f"""
# as the AWS CLI writes it
[default]
aws_access_key_id = AKIDONE
aws_secret_access_key = {SECRET}
region = eu-west-1

[other team]
aws_access_key_id=AKIDTWO
aws_secret_access_key=two
aws_session_token=token
aws_credential_expiration=2023-11-14T22:13:20Z
millstream_namespace=team-2
millstream_functions=true
"""


def test_profiles_are_found_by_access_key():
    credentials = parse_credentials(FILE, "file")
    assert len(credentials) == 2
    one = credentials.find("AKIDONE")
    assert one == Credential("default", "AKIDONE", SECRET)
    assert one.namespace == "default"
    assert not one.functions
    assert credentials.find("AKIDTWO") == Credential(
        "other team", "AKIDTWO", "two", "token", 1_700_000_000.0, "team-2", True
    )
    assert credentials.find("AKIDTHREE") is None


def test_secret_is_never_shown():
    credentials = parse_credentials(FILE, "file")
    one = credentials.find("AKIDONE")
    for text in (repr(credentials), str(credentials), repr(one), str(one), f"{one}", f"{[one]}"):
        assert SECRET not in text
        assert "AKIDONE" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no profile in it"),
        ("[a]\naws_access_key_id=A\n", r"\[a\]: aws_secret_access_key is missing"),
        ("[a]\naws_secret_access_key=S\n", r"\[a\]: aws_access_key_id is missing"),
        ("[a]\naws_access_key_id=\naws_secret_access_key=S\n", "aws_access_key_id is missing"),
        ("[a]\naws_access_key_id=A/B\naws_secret_access_key=S\n", "characters that no key has"),
        ("aws_secret_access_key=S\n", "line 1: not an AWS credentials file"),
        ("[a]\nS S\n", "line 2: not an AWS credentials file"),
        ("[a]\nx=S\nx=S\n", r"x is there twice in \[a\]"),
        ("[a]\nx=S\n[a]\nx=S\n", r"\[a\] is there twice"),
    ],
)
def test_what_is_wrong_is_named_without_its_value(text, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        parse_credentials(text.replace("S", "SECRET"), "file")
    assert "SECRET" not in str(caught.value)
    assert str(caught.value).startswith("file")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("millstream_namspace=x", "millstream_namspace is not a setting"),
        ("millstream_namespace=a/b", "millstream_namespace must be"),
        ("millstream_namespace=", "millstream_namespace must be"),
        ("millstream_functions=perhaps", "millstream_functions must be true or false"),
        ("aws_credential_expiration=soon", "must be an ISO 8601 time"),
    ],
)
def test_settings_are_checked(line, said):
    with pytest.raises(ConfigurationError, match=said):
        parse_credentials(f"[a]\naws_access_key_id=A\naws_secret_access_key=S\n{line}\n", "file")


def test_one_access_key_has_one_profile():
    profile = "aws_access_key_id=A\naws_secret_access_key=S\n"
    with pytest.raises(ConfigurationError, match="'a' and 'b' have the same access key"):
        parse_credentials(f"[a]\n{profile}[b]\n{profile}", "file")
