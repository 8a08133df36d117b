"""Array annotations with shapes: ``Float[np.ndarray, "atoms 3"]``.

The names come from jaxtyping, whose import hook checks every shape while the tests run. On a bare accelerator machine
(torch, numpy, pyarrow, lightning and safetensors only) jaxtyping is absent; the annotations then mean the array type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:

        class _Unchecked:
            """Subscripting gives back the array type and forgets the shape."""

            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = _Unchecked

__all__ = ["Bool", "Float", "Int"]
