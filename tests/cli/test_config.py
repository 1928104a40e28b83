"""Settings: where they come from, which wins, and what is refused."""

import pytest

from millstream.config import DEFAULTS, SETTINGS, Settings, is_loopback, markdown_table, resolve
from millstream.errors import ConfigurationError


def refused(**kwargs) -> str:
    arguments = {"flags": {}, "environment": {}, **kwargs}
    with pytest.raises(ConfigurationError) as caught:
        resolve(**arguments)
    return str(caught.value)


def test_nothing_given_is_the_defaults():
    assert resolve({}, {"PATH": "/bin"}) == DEFAULTS


def test_the_table_and_the_structure_have_the_same_settings():
    assert {setting.name for setting in SETTINGS} == set(Settings.__struct_fields__)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_default_passes_its_own_validation(setting):
    default = getattr(DEFAULTS, setting.name)
    if default is not None:
        assert setting.parse(default) == default


def test_a_flag_wins_over_the_environment_which_wins_over_the_file():
    file_text = 'port = 1\nregion = "eu-west-1"\nlog_level = "error"'
    environment = {"MILLSTREAM_PORT": "2", "MILLSTREAM_REGION": "eu-west-2"}
    settings = resolve({"port": "3", "region": None}, environment, file_text)
    assert (settings.port, settings.region, settings.log_level) == (3, "eu-west-2", "error")


def test_lists_come_from_repeated_flags_from_commas_and_from_toml_arrays():
    assert resolve({"allow_host": ["a", "B"]}, {}).allow_host == ("a", "b")
    assert resolve({}, {"MILLSTREAM_LOG_DIRS": "x, y,z"}).log_dirs == ("x", "y", "z")
    assert resolve({}, {}, 'cors_origin = ["https://a.b:3000/"]').cors_origin == (
        "https://a.b:3000",
    )


def test_in_memory_wins_over_a_directory_from_a_weaker_source_and_the_other_way_round():
    memory = resolve({"in_memory": True}, {"MILLSTREAM_DATA": "somewhere"})
    assert (memory.in_memory, memory.data) == (True, None)
    disk = resolve({"data": "here"}, {"MILLSTREAM_IN_MEMORY": "true"})
    assert (disk.in_memory, disk.data) == (False, "here")
    off = resolve({}, {"MILLSTREAM_IN_MEMORY": "no"}, 'data = "there"')
    assert (off.in_memory, off.data) == (False, "there")


def test_in_memory_and_a_directory_from_one_source_exclude_each_other():
    assert refused(flags={"data": "d", "in_memory": True}) == (
        "--data and --in-memory exclude each other"
    )


def test_unknown_keys_are_refused_with_a_suggestion():
    assert refused(environment={"MILLSTREAM_PROT": "1"}) == (
        "unknown environment variable MILLSTREAM_PROT; did you mean MILLSTREAM_PORT?"
    )
    assert refused(file_text="prot = 1", file_name="m.toml") == (
        "m.toml: unknown setting prot; did you mean port?"
    )
    assert refused(file_text="zzzz = 1", file_name="m.toml") == "m.toml: unknown setting zzzz"


def test_the_configuration_file_may_be_named_by_the_environment():
    assert resolve({}, {"MILLSTREAM_CONFIG": "m.toml"}) == DEFAULTS


def test_a_file_that_is_not_toml_is_refused():
    assert refused(file_text="port: 1", file_name="m.toml").startswith("m.toml is not TOML: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"), ("port", "-1"), ("port", "eighty"), ("port", "9" * 30), ("port", True),
        ("port", 1.5), ("region", "US East"), ("region", 7), ("log_engine", "rocksdb"),
        ("log_level", "loud"), ("memtable_bytes", "1"), ("partitions_per_table", "0"),
        ("max_connections", "0"), ("host", "http://localhost"), ("host", "localhost:8000"),
        ("host", ""), ("allow_host", ["a/b"]), ("allow_host", ["a", "a"]), ("allow_host", 3),
        ("cors_origin", ["*"]), ("cors_origin", ["null"]), ("cors_origin", ["app.example.com"]),
        ("log_dirs", "a,,b"), ("log_dirs", "a,b,c,d,e,f,g,h"), ("data", ""),
        ("in_memory", "perhaps"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_or_out_of_bounds_is_refused_by_name(name, value):
    message = refused(flags={name: value})
    assert message.startswith("--" + name.replace("_", "-") + " ")
    assert repr(value) in message


def test_without_credentials_only_loopback_may_be_bound():
    assert "give --credentials FILE" in refused(flags={"host": "0.0.0.0"})
    assert resolve({"host": "0.0.0.0", "credentials": "keys"}, {}).host == "0.0.0.0"
    for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"):
        assert is_loopback(resolve({"host": host}, {}).host)
    for host in ("0.0.0.0", "::", "192.168.0.1", "localhost.example.com", "127.0.0.1.example.com"):
        assert not is_loopback(host)


def test_in_memory_takes_no_log_settings():
    assert "log directories" in refused(flags={"in_memory": True, "log_dirs": "a,b,c"})
    assert "log files" in refused(flags={"in_memory": True, "log_engine": "segments"})


def test_the_markdown_table_has_a_row_for_each_setting():
    assert len(markdown_table().splitlines()) == len(SETTINGS) + 2
