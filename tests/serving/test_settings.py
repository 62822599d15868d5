"""Settings by flags, environment and file: one name, one order, the same bounds."""

from __future__ import annotations

import inspect

import pytest

from glimmer_export.exporter.cli.serve import serve
from glimmer_export.exporter.config.serving import environment_settings, file_settings
from glimmer_export.runtime import OptionError
from glimmer_export.runtime.serving import Settings, settings_from
from tests.cli.every_command import COMMANDS

BASE = {"bundle": "b"}


def test_every_setting_is_a_flag_of_the_same_name_default_and_bounds():
    (command,) = (item for item in COMMANDS if item.path == ("serve",))
    defaults = {name: item.default for name, item in inspect.signature(serve).parameters.items()}
    assert {name for name in command.infos if name not in {"config", "as_json"}} == Settings.model_fields.keys()
    for name, field in Settings.model_fields.items():
        if name == "bundle":
            continue
        assert command.option(name).partition("/")[0] == f"--{name.replace('_', '-')}"
        assert defaults[name] == (field.default if field.default != () else None)
        for kind in ("ge", "le"):
            bounds = [getattr(item, kind) for item in field.metadata if hasattr(item, kind)]
            assert bounds in ([], [getattr(command.infos[name], {"ge": "min", "le": "max"}[kind])]), name


def test_the_earlier_source_goes_before_the_later(tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text("max_queue: 1\nwindow_ms: 1\nport: 1\ncors_origins: [https://a.example]\n", encoding="utf-8")
    variables = {"GLIMMER_SERVE_WINDOW_MS": "2", "GLIMMER_SERVE_PORT": "2", "GLIMMER_SERVE_LOG_QUESTIONS": "true"}
    found = settings_from({**BASE, "port": 3}, environment_settings({**variables, "HOME": "x"}), file_settings(path))
    assert (found.max_queue, found.window_ms, found.port, found.log_questions) == (1, 2, 3, True)
    assert found.cors_origins == ("https://a.example",)
    assert environment_settings({"GLIMMER_SERVE_CORS_ORIGINS": "a,b"}) == {"cors_origins": ("a", "b")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_que": 1}, {"max_queue": 0}, {"max_queue": "many"}, {"port": 70_000}, {"window_ms": float("nan")},
        {"timeout_s": 0}, {"timeout_s": float("inf")}, {"insecure": "perhaps"}, {"bundle": 1}, {"host": ""},
        {"require_parity": "yes"}, {"mass": 0}, {"mass": 1.5}, {"mass": 0.5, "require_parity": "device"},
        {"max_body_bytes": 3}, {"cors_origins": "https://a.example"},
    ],
    ids=str,
)
def test_what_is_no_setting_is_named(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        settings_from(wrong, BASE)


def test_a_bundle_is_needed():
    with pytest.raises(OptionError, match="bundle"):
        settings_from({})


@pytest.mark.parametrize("content", ["", "- 1", "text", "a: [", "1: 2", "max_queue: 1\nmax_queue: 2"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, content):
    path = tmp_path / "serve.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(OptionError, match=r"serve\.yaml"):
        file_settings(path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.example.org"])
def test_other_machines_need_a_token(host):
    with pytest.raises(OptionError, match="token"):
        settings_from({**BASE, "host": host})
    assert settings_from({**BASE, "host": host, "token_file": "t"}).host == host
    assert settings_from({**BASE, "host": host, "insecure": True}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_none(host):
    assert settings_from({**BASE, "host": host}).is_loopback
