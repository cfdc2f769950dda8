"""Finding plugins and looking up what they bring.

Plugins come by the entry-point group `normcore`, built-in families through the same door as a stranger's, or as
files named by the user (`--plugin FILE`). Each is imported, registered with pluggy and verified one by one, so one
that fails is reported and set aside while everything else works: pluggy's own loader stops at the first import
error, skips a second plugin of the same name in silence, and leaves a failed registration half done.
"""

import hashlib
import importlib.metadata
import importlib.util
import pathlib
import sys
import time
import traceback
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pluggy

from normcore import hookspecs
from normcore.component import Component
from normcore.errors import PluginError, listing_of, nearest, snake_case
from normcore.op import INTERFACE_VERSION, Op

GROUP = "normcore"
# hook -> (kind of component, plural used in messages)
COMPONENT_HOOKS = {
    "normcore_ops": "op",
    "normcore_datasets": "data source",
    "normcore_losses": "loss",
    "normcore_optimizers": "optimizer",
    "normcore_schedules": "schedule",
    "normcore_initializers": "initializer",
}


@dataclass
class Plugin:
    """One plugin found. error is empty for one that works; trace holds the last frames of its traceback, line
    the one of a plugin file where it failed (0: unknown)."""

    name: str
    origin: str  # "entry point module" or the file's path
    distribution: str = ""
    version: str = ""
    digest: str = ""  # of a plugin file: recorded with each run
    seconds: float = 0.0
    hooks: tuple[str, ...] = ()
    error: str = ""
    trace: tuple[str, ...] = ()
    fault: BaseException | None = field(default=None, repr=False, compare=False)
    line: int = 0
    remarks: tuple[str, ...] = ()  # what works otherwise than its author may think
    file: str = ""  # of the module that has the hooks
    components: list[tuple[str, str]] = field(default_factory=list)  # (kind, name)


@dataclass(frozen=True)
class Registered:
    """A component with the plugin it came from."""

    component: type[Component]
    plugin: Plugin

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def aliases(self) -> tuple[str, ...]:
        return self.component.aliases

    @property
    def doc(self) -> str:
        return self.component.__doc__ or ""

    @property
    def parameters(self) -> Sequence[Any]:
        return self.component.parameters()

    @property
    def source(self) -> str:
        return getattr(self.component, "source", "")


class Registry:
    """All plugins and, by kind and name, what they bring."""

    def __init__(self, without: Iterable[str] = ()):
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self.without = frozenset(without)
        self._components: dict[str, dict[str, Registered]] = {kind: {} for kind in COMPONENT_HOOKS.values()}
        self._names: dict[str, dict[str, Registered]] = {kind: {} for kind in COMPONENT_HOOKS.values()}

    def load_entry_points(self) -> None:
        """Import and register every plugin of the entry-point group; failures are recorded, not raised."""
        found = importlib.metadata.entry_points(group=GROUP)
        known: set[str] = set()
        for point in sorted(found, key=lambda p: (p.name, p.value)):
            dist = point.dist
            names = {point.name, dist.name} if dist else {point.name}
            known |= names
            if names & self.without:
                continue
            plugin = Plugin(point.name, point.value, dist.name if dist else "", dist.version if dist else "")
            if any(p.origin == plugin.origin and p.distribution == plugin.distribution for p in self.plugins):
                continue  # one distribution seen through two metadata folders
            self._admit(plugin, point.load)
        for name in sorted(self.without - known):
            raise PluginError(f"--without {name}: no installed plugin has this name{nearest(name, known)}")

    def load_file(self, path: str | pathlib.Path) -> Plugin:
        """Import and register one plugin file. Raises PluginError when it cannot be used."""
        file = pathlib.Path(path).resolve()
        if not file.is_file():
            raise PluginError(f"plugin file {path}: there is no such file")
        known = next((p for p in self.plugins if p.file == str(file)), None)
        if known is not None and not known.error:
            return known  # loaded before, or installed from this very file
        source = file.read_bytes()
        digest = hashlib.sha256(source).hexdigest()
        plugin = Plugin(file.stem, str(file), digest=digest)
        module_name = f"normcore_plugin_{file.stem}_{digest[:12]}"

        def load() -> types.ModuleType:
            spec = importlib.util.spec_from_file_location(module_name, file)
            if spec is None or spec.loader is None or file.suffix != ".py":
                raise PluginError(f"plugin file {path}: expected a Python file (.py)")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            # Not by the loader, whose bytecode may be that of an older text of the same second and size.
            exec(compile(source, str(file), "exec"), module.__dict__)
            return module

        self._admit(plugin, load)
        if plugin.error:
            self.plugins.remove(plugin)
            where = f", line {plugin.line}" if plugin.line else ""
            raise PluginError(f"plugin file {path}{where}: {plugin.error}") from plugin.fault
        return plugin

    def add(self, module: Any, name: str = "added") -> Plugin:
        """Register a module or object that implements hooks; for tests and notebooks. Raises PluginError."""
        plugin = Plugin(name, getattr(module, "__name__", repr(module)))
        self._admit(plugin, lambda: module)
        if plugin.error:
            self.plugins.remove(plugin)
            raise PluginError(f"plugin {name}: {plugin.error}")
        return plugin

    # -- look-ups ---------------------------------------------------------------------------------------------

    def all(self, kind: str) -> list[Registered]:
        return [self._components[kind][name] for name in sorted(self._components[kind])]

    def get(self, kind: str, name: str) -> Registered:
        """The component of that kind by name or alias. Raises PluginError naming the nearest known one."""
        found = self._names[kind].get(name)
        if found is None:
            broken = [p.name for p in self.plugins if p.error]
            hint = f" (set aside: plugin {', '.join(broken)}; see `normcore plugins list`)" if broken else ""
            raise PluginError(
                f"unknown {kind} {name!r}{nearest(name, self._names[kind], listing_of(kind))}{hint}"
            )
        return found

    def names(self, kind: str) -> list[str]:
        """All names and aliases of a kind."""
        return sorted(self._names[kind])

    def call(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """Call a hook's implementations one by one, by plugin name; yields (plugin name, result)."""
        caller = getattr(self.manager.hook, hook)
        for implementation in sorted(caller.get_hookimpls(), key=lambda i: i.plugin_name):
            given = {key: arguments[key] for key in implementation.argnames}
            yield implementation.plugin_name, implementation.function(**given)

    # -- admission --------------------------------------------------------------------------------------------

    def _admit(self, plugin: Plugin, load: Any) -> None:
        self.plugins.append(plugin)
        started = time.perf_counter()
        module = None
        try:
            module = load()
            file = getattr(module, "__file__", None)
            plugin.file = str(pathlib.Path(file).resolve()) if file else ""
            self._check_hooks(module)
            plugin.remarks = tuple(_unmarked(module))
            key = f"{plugin.name}:{plugin.distribution or plugin.origin}"
            self.manager.register(module, name=key)
            self.manager.check_pending()
            plugin.hooks = tuple(sorted(i.name for i in self.manager.get_hookcallers(module) or ()))
            self._collect(plugin, module)
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # a plugin that calls sys.exit too
            plugin.error = (
                f"{type(fault).__name__}: {fault}" if not isinstance(fault, PluginError) else str(fault)
            )
            frames = _frames(fault)
            own = [frame for frame in frames if frame.filename == plugin.origin]
            plugin.fault, plugin.line = fault, own[-1].lineno or 0 if own else 0
            plugin.trace = tuple(traceback.format_list(frames[-2:]))
            plugin.components.clear()
            if module is not None and self.manager.is_registered(module):
                self.manager.unregister(module)
        finally:
            plugin.seconds = time.perf_counter() - started  # hooks import too: families load their ops there

    def _check_hooks(self, module: Any) -> None:
        """A misspelt hook is an error with the nearest real name; pluggy would keep it pending."""
        known = [name for name in vars(hookspecs) if name.startswith("normcore_")]
        for name in dir(module):
            value = getattr(module, name, None)
            if hasattr(value, f"{hookspecs.PROJECT}_impl") and name not in known:
                raise PluginError(f"hook {name!r} is unknown{nearest(name, known)}")

    def _collect(self, plugin: Plugin, module: Any) -> None:
        additions: list[tuple[str, Registered]] = []
        for hook, kind in COMPONENT_HOOKS.items():
            implementation = getattr(module, hook, None)
            if implementation is None or not hasattr(implementation, f"{hookspecs.PROJECT}_impl"):
                continue
            found = implementation()
            if not isinstance(found, Iterable):
                raise PluginError(
                    f"{hook}() returned {_named(found)}; expected a list: return [{_named(found)}]"
                )
            for component in found:
                additions.append((kind, self._checked(kind, hook, component, plugin)))
        taken: dict[tuple[str, str], str] = {}
        for kind, registered in additions:
            for name in (registered.name, *registered.aliases):
                owner = self._names[kind].get(name)
                if owner is not None or (kind, name) in taken:
                    other = owner.plugin.name if owner else plugin.name
                    cure = f", or leave one out (--without {other})" if other != plugin.name else ""
                    raise PluginError(
                        f"{kind} {name!r} is already brought by plugin {other!r}; rename one of them{cure}"
                    )
                taken[kind, name] = plugin.name
        for kind, registered in additions:
            self._components[kind][registered.name] = registered
            plugin.components.append((kind, registered.name))
            for name in (registered.name, *registered.aliases):
                self._names[kind][name] = registered

    def _checked(self, kind: str, hook: str, component: Any, plugin: Plugin) -> Registered:
        if not (isinstance(component, type) and issubclass(component, Component)) or component.kind != kind:
            raise PluginError(
                f"{hook}() returned {component!r}; expected {kind} classes (see normcore/hookspecs.py)"
            )
        if not component.name.isidentifier() or component.name != component.name.lower():
            raise PluginError(
                f"{kind} {component.name!r}: a name is lower_snake_case, such as {snake_case(component.name)!r}"
            )
        if issubclass(component, Op) and component.interface != INTERFACE_VERSION:
            raise PluginError(
                f"op {component.name!r} was written for interface {component.interface}, "
                f"this normcore speaks {INTERFACE_VERSION}; update the plugin or normcore"
            )
        return Registered(component, plugin)


def _named(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)


def _frames(fault: BaseException) -> list[traceback.FrameSummary]:
    """The frames of a plugin's failure, without those of Python's import system and of this file."""
    frames = traceback.extract_tb(fault.__traceback__)
    return [f for f in frames if not f.filename.startswith("<frozen importlib") and f.filename != __file__]


def _unmarked(module: Any) -> Iterator[str]:
    """Functions that look like hooks and are never called, because @normcore.hookimpl is missing."""
    known = [name for name in vars(hookspecs) if name.startswith("normcore_")]
    for name, value in vars(module).items():
        own = isinstance(value, types.FunctionType) and value.__module__ == getattr(module, "__name__", "")
        if own and name.startswith("normcore_") and not hasattr(value, f"{hookspecs.PROJECT}_impl"):
            hint = "" if name in known else nearest(name, known)
            yield f"function {name!r} is never called: mark it with @normcore.hookimpl{hint}"


_left_out: frozenset[str] = frozenset()


def leave_out(names: Iterable[str]) -> None:
    """Make default() a registry without the plugins, or distributions, of these names (--without)."""
    global _left_out
    if frozenset(names) != _left_out:
        _left_out = frozenset(names)
        default.cache_clear()


@cache
def default() -> Registry:
    """The registry of everything installed, loaded at the first use."""
    registry = Registry(_left_out)
    registry.load_entry_points()
    return registry
