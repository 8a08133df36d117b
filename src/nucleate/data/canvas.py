"""A canvas that draws shaded spheres, rods and faces in parallel projection, with exact depth.

Every pixel keeps the depth of what it shows, so that spheres and rods cut into each other as they should.
x runs right, y up and z towards the viewer, all in Å.
"""

from __future__ import annotations

import numpy as np

from nucleate.shapes import Float

_LIGHT = np.array([-0.42, 0.56, 0.72]) / np.linalg.norm([-0.42, 0.56, 0.72])
_VIEWER = np.array([0.0, 0.0, 1.0])
_HALFWAY = (_LIGHT + _VIEWER) / np.linalg.norm(_LIGHT + _VIEWER)


class Canvas:
    """A square picture of the volume ``|x|, |y| <= extent``, with far things fading into the background.

    Args:
        pixels: width and height of the result; drawing happens at twice that.
        extent: half the width in Å.
        background: RGB from 0 to 1.
        fade: how much of the background the farthest point takes on, 0 to 1.
    """

    def __init__(
        self,
        pixels: int,
        extent: float,
        *,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
        fade: float = 0.5,
    ) -> None:
        self.pixels = pixels
        self.extent = extent
        self.fade = fade
        self._background = np.array(background)
        size = 2 * pixels
        self._axis = (np.arange(size) + 0.5) / size * 2 * extent - extent
        self._colour = np.broadcast_to(self._background, (size, size, 3)).copy()
        self._depth = np.full((size, size), -np.inf)

    def sphere(
        self,
        center: Float[np.ndarray, "3"],
        radius: float,
        colour: Float[np.ndarray, "3"],
        *,
        ring: Float[np.ndarray, "3"] | None = None,
    ) -> None:
        """Draw a sphere; ``ring`` is the colour of a band around its outline."""
        window = self._window(center[:2], center[:2], radius)
        if window is None:
            return
        rows, columns = window
        dx = self._axis[columns][None, :] - center[0]
        dy = self._axis[rows][:, None] - center[1]
        squared = (dx**2 + dy**2) / radius**2
        inside = squared < 1.0
        height = np.sqrt(np.where(inside, 1.0 - squared, 0.0))
        normal = np.stack(np.broadcast_arrays(dx / radius, dy / radius, height), axis=-1)
        pixels = self._shade(normal, colour)
        if ring is not None:
            pixels[squared > 0.66] = ring
        self._paint(window, inside, center[2] + radius * height, pixels)

    def rod(
        self,
        start: Float[np.ndarray, "3"],
        end: Float[np.ndarray, "3"],
        radius: float,
        colours: tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]],
    ) -> None:
        """Draw a cylinder whose two halves have a colour each."""
        axis = end - start
        length = float(np.linalg.norm(axis))
        axis = axis / length
        in_plane = float(np.hypot(axis[0], axis[1]))
        window = self._window(start[:2], end[:2], radius)
        if window is None or in_plane < 1e-6:
            return
        rows, columns = window
        dx = self._axis[columns][None, :] - start[0]
        dy = self._axis[rows][:, None] - start[1]
        across = (dx * axis[1] - dy * axis[0]) / in_plane  # distance from the axis, seen by the viewer
        inside = np.abs(across) < radius
        bulge = np.sqrt(np.where(inside, radius**2 - across**2, 0.0))
        # The viewer's ray meets the surface where the axis has run t; the bulge leans back along the axis.
        t = ((dx * axis[0] + dy * axis[1]) / in_plane + bulge * axis[2]) / in_plane
        inside &= (t >= 0.0) & (t <= length)
        sideways = np.array([axis[1], -axis[0], 0.0]) / in_plane
        towards = np.cross(sideways, axis)
        towards = towards if towards[2] > 0 else -towards
        normal = (across[..., None] * sideways + bulge[..., None] * towards) / radius
        surface = start[2] + t * axis[2] + bulge * towards[2]
        colour = np.where((t < length / 2)[..., None], colours[0], colours[1])
        self._paint(window, inside, surface, self._shade(normal, colour))

    def face(
        self, corners: Float[np.ndarray, "3 3"], colour: Float[np.ndarray, "3"], *, opacity: float = 0.3
    ) -> None:
        """Lay a translucent triangle over what lies behind it; draw faces last, from back to front."""
        window = self._window(corners[:, :2].min(axis=0), corners[:, :2].max(axis=0), 0.0)
        edges = corners[1:] - corners[0]
        area = edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0]
        if window is None or abs(area) < 1e-9:
            return
        rows, columns = window
        dx = self._axis[columns][None, :] - corners[0, 0]
        dy = self._axis[rows][:, None] - corners[0, 1]
        u = (dx * edges[1, 1] - dy * edges[1, 0]) / area
        v = (dy * edges[0, 0] - dx * edges[0, 1]) / area
        depth = corners[0, 2] + u * edges[0, 2] + v * edges[1, 2]
        visible = (u >= 0) & (v >= 0) & (u + v <= 1) & (depth > self._depth[rows, columns])
        normal = np.cross(edges[0], edges[1])
        normal = normal / np.linalg.norm(normal) * np.sign(normal[2] or 1.0)
        shaded = self._shade(np.broadcast_to(normal, (*visible.shape, 3)), colour)
        below = self._colour[rows, columns]
        self._colour[rows, columns] = np.where(
            visible[..., None], opacity * self._fog(shaded, depth) + (1 - opacity) * below, below
        )

    def image(self) -> Float[np.ndarray, "pixels pixels 3"]:
        """The picture, RGB from 0 to 1, top row first, smoothed over 2 x 2 drawn pixels."""
        smooth = self._colour.reshape(self.pixels, 2, self.pixels, 2, 3).mean(axis=(1, 3))
        return np.clip(smooth[::-1], 0.0, 1.0)

    def _window(
        self, low: Float[np.ndarray, "2"], high: Float[np.ndarray, "2"], margin: float
    ) -> tuple[slice, slice] | None:
        """Rows and columns that a thing between two corners can touch."""
        lower, upper = np.minimum(low, high) - margin, np.maximum(low, high) + margin
        columns = slice(*np.searchsorted(self._axis, [lower[0], upper[0]]))
        rows = slice(*np.searchsorted(self._axis, [lower[1], upper[1]]))
        return None if columns.start == columns.stop or rows.start == rows.stop else (rows, columns)

    def _shade(self, normal: Float[np.ndarray, "h w 3"], colour: np.ndarray) -> Float[np.ndarray, "h w 3"]:
        """Ambient, diffuse and glossy light on a surface (Blinn-Phong)."""
        diffuse = np.clip(normal @ _LIGHT, 0.0, None)[..., None]
        gloss = np.clip(normal @ _HALFWAY, 0.0, None)[..., None] ** 48
        rim = 1.0 - 0.35 * (1.0 - np.clip(normal[..., 2:], 0.0, 1.0)) ** 3
        return (colour * (0.42 + 0.62 * diffuse)) * rim + 0.42 * gloss

    def _fog(
        self, colour: Float[np.ndarray, "h w 3"], depth: Float[np.ndarray, "h w"]
    ) -> Float[np.ndarray, "h w 3"]:
        away = np.clip((self.extent - depth) / (2 * self.extent), 0.0, 1.0)[..., None] * self.fade
        return (1 - away) * colour + away * self._background

    def _paint(
        self,
        window: tuple[slice, slice],
        inside: np.ndarray,
        depth: Float[np.ndarray, "h w"],
        pixels: Float[np.ndarray, "h w 3"],
    ) -> None:
        rows, columns = window
        nearer = inside & (depth > self._depth[rows, columns])
        self._colour[rows, columns][nearer] = self._fog(pixels, depth)[nearer]
        self._depth[rows, columns][nearer] = depth[nearer]
