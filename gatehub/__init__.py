"""One frozen convolutional backbone, many small adapters: train, share, serve and export them.

    import gatehub

    backbone = gatehub.load_backbone("resnet18.a1_in1k")
    model = gatehub.attach_gates(backbone, labels=["cat", "dog"])
    ...  # train it
    adapter = gatehub.Adapter.from_model(model, task="pets")

    engine = gatehub.Engine(backbone)
    engine.load("pets", adapter)
    logits = engine.predict("pets", images)

The names below load on first use, so that `import gatehub` costs next to nothing: who only
predicts never waits for ONNX, and who only pulls an adapter never waits for a web server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gatehub import _places

if TYPE_CHECKING:
    from pathlib import Path

    import gatehub.errors as errors
    import gatehub.export as export
    from gatehub.adapter import Adapter
    from gatehub.backbone import Backbone, load_backbone
    from gatehub.backbone.images import ImageRules
    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.errors import GatehubError
    from gatehub.gates.attach import attach_gates
    from gatehub.gates.fold import fold
    from gatehub.gates.rules import SiteRule, register_site
    from gatehub.hub import list_adapters, pull, push, search
    from gatehub.runtime.engine import Engine

    __version__: str

__all__ = [
    "Adapter",
    "Backbone",
    "Engine",
    "GatehubError",
    "ImageRules",
    "Preprocessing",
    "SiteRule",
    "__version__",
    "attach_gates",
    "errors",
    "export",
    "fold",
    "list_adapters",
    "load_backbone",
    "pull",
    "push",
    "register_site",
    "search",
]

_MODULES = frozenset({"errors", "export"})

# Public name -> the module that defines it.
_HOMES = {
    "Adapter": "gatehub.adapter",
    "Backbone": "gatehub.backbone",
    "Engine": "gatehub.runtime.engine",
    "GatehubError": "gatehub.errors",
    "ImageRules": "gatehub.backbone.images",
    "Preprocessing": "gatehub.backbone.preprocessing",
    "SiteRule": "gatehub.gates.rules",
    "attach_gates": "gatehub.gates.attach",
    "fold": "gatehub.gates.fold",
    "list_adapters": "gatehub.hub",
    "load_backbone": "gatehub.backbone",
    "pull": "gatehub.hub",
    "push": "gatehub.hub",
    "register_site": "gatehub.gates.rules",
    "search": "gatehub.hub",
}


def _pull(name: str) -> Path:
    """Fetch an adapter for whoever loads one by its name on a hub."""
    from gatehub.hub import pull

    return pull(name)


_places.set_pull(_pull)


def __getattr__(name: str) -> Any:
    """Import what stands behind a public name on its first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f"gatehub.{name}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("gatehub")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'gatehub' has no attribute {name!r}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
