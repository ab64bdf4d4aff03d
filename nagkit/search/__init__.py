"""Searches by the names of their methods: `nagkit.search(objective, space)` is `nagkit.search.methods.search`."""

import sys
from types import ModuleType


class _Search(ModuleType):
    """This package, which can be called like the function that gives it its name."""

    def __call__(self, objective, *args, **options):
        """`nagkit.search.methods.search`."""
        from nagkit.search.methods import search

        return search(objective, *args, **options)


sys.modules[__name__].__class__ = _Search
