"""Compositions of Hydra are cached, because the suite composes a thousand times."""

import copy
import pickle
from collections.abc import Iterator
from itertools import takewhile
from types import SimpleNamespace
from typing import Any

import pytest
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core import utils as hydra_utils
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

compose_from_defaults_list = ConfigLoaderImpl._compose_config_from_defaults_list
load_single_config = ConfigLoaderImpl._load_single_config
load_result = ConfigRepository.load_config
create_interpolation_map = defaults_list._create_interpolation_map


class ComposeCache:
    """Stores the parts of Hydra's compositions that depend only on the selected files, which are most of the time.

    Hydra still parses the overrides and applies values such as `ipc=1` to a copy of the stored configuration. Only
    compositions of the files in this package and in Hydra's are stored.
    """

    def __init__(self) -> None:
        self.enabled = True
        self.results: dict[str, Any] = {}  # files without their defaults lists, which Hydra copies
        self.lists: dict[Any, bytes] = {}  # pickles, because Hydra modifies the objects
        self.files: dict[Any, bytes] = {}
        self.configs: dict[tuple[str, ...], bytes] = {}  # merged files; also of the first files of a list
        self.last: tuple[str, ...] = ()

    def shipped(self, repo: Any) -> bool:
        return self.enabled and {source.full_path() for source in repo.get_sources()} <= {
            "pkg://dd_bench.conf",
            "pkg://hydra.conf",
            "structured://",
        }

    def create_defaults_list(self, repo, config_name, overrides_list, prepend_hydra, skip_missing) -> Any:
        arguments = (config_name, overrides_list, prepend_hydra, skip_missing)
        if not self.shipped(repo):
            return create_defaults_list(repo, *arguments)
        overrides = Overrides(repo, overrides_list)
        values = {id(o) for o in overrides.config_overrides}
        groups = tuple(o.input_line for o in overrides_list if id(o) not in values)
        key = (config_name, groups, prepend_hydra, skip_missing)
        if key not in self.lists:
            created = create_defaults_list(repo, *arguments)
            self.lists[key] = pickle.dumps((created.defaults, created.overrides.known_choices))
            return created
        defaults, overrides.known_choices = pickle.loads(self.lists[key])
        return DefaultsList(defaults, None, overrides.config_overrides, overrides)  # type: ignore[arg-type]

    def load_result(self, repo: Any, config_path: str) -> Any:
        if not self.shipped(repo):
            return load_result(repo, config_path)
        if config_path not in self.results:
            self.results[config_path] = load_result(repo, config_path)
        result = self.results[config_path]
        # Hydra applies the overrides to the primary file, which is in no group, when it looks for hydra.searchpath
        return result if "/" in config_path else copy.deepcopy(result)

    def compose_from_defaults_list(self, loader: Any, defaults: list[Any], repo: Any) -> Any:
        """Merge the files after the longest stored beginning of the list. Also store the part shared with the last."""
        if not self.shipped(repo):
            return compose_from_defaults_list(loader, defaults, repo)
        key = tuple(str(default) for default in defaults)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(key, self.last, strict=False)))
        self.last = key
        done = next((n for n in range(len(key), 0, -1) if key[:n] in self.configs), 0)
        for end in (common, len(key)):
            if end > done:
                merged = self.merge(loader, key[:done], defaults[done:end], repo)
                self.configs[key[:end]] = pickle.dumps(merged)
                done = end
        return pickle.loads(self.configs[key])

    def merge(self, loader: Any, stored: tuple[str, ...], defaults: list[Any], repo: Any) -> Any:
        """Merge files into a stored configuration with Hydra's function, for which it is the first file."""

        def load(default: Any, repo: Any) -> Any:
            if default is None:
                return SimpleNamespace(config=pickle.loads(self.configs[stored]))
            return self.load_single_config(loader, default, repo)

        files = [None, *defaults] if stored else defaults
        return compose_from_defaults_list(SimpleNamespace(_load_single_config=load), files, repo)  # type: ignore[arg-type]

    def load_single_config(self, loader: Any, default: Any, repo: Any) -> Any:
        if not self.shipped(repo):
            return load_single_config(loader, default, repo)
        key = str(default)
        if key not in self.files:
            self.files[key] = pickle.dumps(load_single_config(loader, default, repo))
        return pickle.loads(self.files[key])


@pytest.fixture(scope="session", autouse=True)
def compose_cache() -> Iterator[ComposeCache]:
    """Make Hydra parse each YAML file once, cache its compositions, and skip the one that determines hydra.mode.

    The suite composes a thousand times, with 25 YAML files each. No configuration sets hydra.mode.
    """
    Plugins.instance()  # registers its own copy of the class, which differs from an imported one
    source = SourcesRegistry.instance().resolve("pkg")
    load, parsed, cache = source.load_config, {}, ComposeCache()

    def load_config(self: Any, config_path: str) -> Any:
        key = self.path, config_path
        if key not in parsed:
            parsed[key] = pickle.dumps(load(self, config_path))
        return pickle.loads(parsed[key])  # a copy, because Hydra removes the defaults list from it

    def compose_config(self: Any, defaults: list[Any], repo: Any) -> Any:
        return cache.compose_from_defaults_list(self, defaults, repo)

    def load_single(self: Any, default: Any, repo: Any) -> Any:
        return cache.load_single_config(self, default, repo)

    def choices(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
        unused = not any("${" in str(default) for default in defaults)  # no default depends on another choice
        return OmegaConf.create() if unused else create_interpolation_map(overrides, defaults, self_added)

    def load_result(self: Any, config_path: str) -> Any:
        return cache.load_result(self, config_path)

    def set_config(self: Any, cfg: Any) -> None:
        OmegaConf.set_readonly(cfg.hydra, True)
        copied = pickle.loads(pickle.dumps(cfg))  # three times as fast as the deep copy of `masked_copy`
        for key in [key for key in copied if key != "hydra"]:
            dict.pop(copied._content, key)
        copied._set_flag(["struct", "readonly"], None)
        self.cfg = copied
        self.cfg.hydra._set_parent(cfg)

    def copied(cfg: Any) -> Any:
        """Copy the configuration of a job without `hydra`, which Hydra deletes. Its own is only read."""
        if len(cfg) == 1:
            return cfg
        hydra = cfg._content.pop("hydra")
        task = pickle.loads(pickle.dumps(cfg))
        cfg._content["hydra"] = hydra
        task._content["hydra"] = None
        return task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", load_result)
        patch.setattr(source, "load_config", load_config)
        patch.setattr(config_loader_impl, "create_defaults_list", cache.create_defaults_list)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", compose_config)
        patch.setattr(ConfigLoaderImpl, "_load_single_config", load_single)
        patch.setattr(defaults_list, "_create_interpolation_map", choices)
        patch.setattr(ConfigRepository, "__deepcopy__", lambda self, memo: copy.copy(self), raising=False)
        patch.setattr(hydra_utils, "copy", SimpleNamespace(deepcopy=copied))
        patch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        patch.setattr(HydraConfig, "set_config", set_config)
        patch.setattr(hydra_utils, "_save_config", lambda *_: None)  # no test reads the folder .hydra
        yield cache
