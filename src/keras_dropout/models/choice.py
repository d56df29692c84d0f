"""Read a placement: the sites that it names, and the layer that it asks for at each of them."""

import difflib
from collections.abc import Mapping
from typing import Any, NoReturn

import keras

from keras_dropout import layers
from keras_dropout.errors import BadInput, check_rate, first_line, refuse
from keras_dropout.examples import LAYERS
from keras_dropout.layers import Dropout
from keras_dropout.layers.base import LayerWrapper, Stochastic
from keras_dropout.masks import derive_seed
from keras_dropout.models import graph
from keras_dropout.models.dropping import is_dropout
from keras_dropout.models.survey import GROUPS, Site

# Entries of a spec that the layer's constructor does not take.
_NO_OPTIONS = ("kind", "schedule", "over_depth")
_MOST_NAMES = 30  # in a message


def layer_for(value: Any, around: keras.Layer | None = None, derive: str | None = None) -> keras.Layer:
    """Return the layer that a value of a placement asks for, put around a layer if the method does that.

    `derive` names the site if there are several: each site then gets another seed.
    """
    if isinstance(value, keras.Layer):
        cls = type(value)
        if isinstance(value, LayerWrapper):
            refuse(
                f"{cls.__name__} goes around a layer; as a value of a placement it has one already.",
                f'Write {{"kind": "{cls.__name__}", "rate": …}}: it is put around the layer at the site.',
            )
        if not is_dropout(value) and cls.__module__.startswith("keras."):  # a class of the user's own may drop
            refuse(f"{cls.__name__} is no dropout layer.", "Put a layer that drops there, for example Dropout(0.2).")
        graph.made_again(value)  # refuses a layer that cannot be copied
        options = {k: v for k, v in value.get_config().items() if k != "name"}
    elif isinstance(value, Mapping):
        cls, options = class_of(value.get("kind")), {name: v for name, v in value.items() if name not in _NO_OPTIONS}
    else:
        cls, options = Dropout, {"rate": check_rate("placement", value)}
    if derive is not None and options.get("seed") is not None:
        options["seed"] = derive_seed(options["seed"], derive)
    try:
        if around is not None:
            return cls(layer=around, **options)
        return cls.from_config(options) if isinstance(value, keras.Layer) else cls(**options)
    except BadInput:
        raise
    except (TypeError, ValueError) as error:
        name, why = cls.__name__, first_line(error)
        refuse(f"{name} cannot be made from {options}: {why}", f"See help(keras_dropout.{name}).")


def class_of(kind: Any) -> type[Stochastic]:
    known = {name: getattr(layers, name) for name in LAYERS if isinstance(getattr(layers, name), type)}
    if kind not in known:
        refuse(f"no dropout layer {kind!r} that can be put at a site.", f"Use one of: {', '.join(sorted(known))}.")
    return known[kind]


def _method(value: Any) -> str:
    """Return the name of the method that a value of a placement asks for."""
    if isinstance(value, Mapping):
        return str(value.get("kind"))
    return type(value).__name__ if isinstance(value, keras.Layer) else "Dropout"


def goes_around(value: Any) -> bool:
    return isinstance(value, Mapping) and issubclass(class_of(value.get("kind")), keras.layers.Wrapper)


def refuse_seed(site: Site) -> NoReturn:
    """Refuse a site of the group "draws"."""
    address = site.name.rpartition("/")[0]
    refuse(
        f"{site.kind} {address!r} draws at random from a seed of its own: what it draws is only seen when it runs.",
        "Where that is dropout, call a keras.layers.Dropout in the class instead: keras_dropout.adopt(model) gives it a rate.",
    )


def nearest(pattern: str, names: list[str]) -> list[str]:
    """Return the names for a message: of many, those that are most like a pattern."""
    if len(names) <= _MOST_NAMES:
        return names
    return [*(difflib.get_close_matches(pattern, names, _MOST_NAMES, cutoff=0.4) or names[:_MOST_NAMES]), "…"]


def chosen_sites(known: list[Site], placement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value for each site that a placement names; a later pattern overrides an earlier one."""
    resolved: dict[str, Any] = {}
    for pattern, value in placement.items():
        named = [site for site in known if site.matches(pattern)]
        if named and all(site.group == "draws" for site in named):
            refuse_seed(named[0])
        if not named:
            names = nearest(pattern, [site.name for site in known if site.group != "draws"])
            refuse(
                f"unknown site {pattern!r}: the model has no such site.",
                f"Use one of the groups {', '.join(GROUPS)}, a class of layers, a glob, or a site: {', '.join(names)}.",
            )
        named = [site for site in named if site.group != "draws"]
        method, exact = _method(value), [site for site in named if site.name == pattern]
        if exact or not isinstance(getattr(layers, method, None), type):
            chosen = exact or named
        elif not (chosen := [site for site in named if site.fits(method)]):
            fitting = [site.name for site in known if site.fits(method)]
            here = f"At {named[0].name} fit: {', '.join(named[0].methods) or 'none'}."
            refuse(f"{method} fits no site of {pattern!r}.", f"It fits {', '.join(fitting)}." if fitting else here)
        resolved.update(dict.fromkeys((site.name for site in chosen), value))
    return {site.name: resolved[site.name] for site in known if site.name in resolved}
