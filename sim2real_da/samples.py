# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The nouns every room of the package speaks. Shapes and units stand here and nowhere else.

* image: uint8 RGB ``(H, W, 3)``
* pose: object in the camera *optical* frame (x right, y down, z forward; REP-103), metres, unit quaternion
  **xyzw with w >= 0**
* box: ``x0 y0 x1 y1`` in pixels of the original image; a pixel's centre has integer coordinates
* class: a name; integer ids live only inside a network and its label map

Source (simulated) frames are :class:`LabelledFrame`; target (real) frames are plain :class:`Frame`, a type that
cannot carry labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real_da.geometry import canonical_quaternion, matrix_from_quaternion

LARGEST_THROUGH_LENS = 32_766  # pixels; OpenCV straightens no larger pictures
FARTHEST_M = 1e6


@dataclass(frozen=True)
class Intrinsics:
    """Camera: pinhole, or with a lens that is not one.

    :param width: image width in pixels the other numbers belong to
    :param fx: focal length in pixels
    :param cx: principal point in pixels
    :param distortion: in OpenCV's order: 4 or 5 (``plumb_bob``), 8 or 12 (``rational_polynomial``, with thin prism), or
        the 4 of a fisheye lens
    :param fisheye: the distortion is of OpenCV's fisheye model (ROS: ``equidistant``)
    :raises ValueError: for a size below one pixel, a non-finite number, a focal length that is not positive or another
        count of coefficients
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if self.width < 1 or self.height < 1:
            raise ValueError(f'intrinsics: image size {self.width}x{self.height}, expected at least 1x1')
        if (self.fisheye or any(self.distortion)) and max(self.width, self.height) > LARGEST_THROUGH_LENS:
            raise ValueError(f'intrinsics: image size {self.width}x{self.height} through a lens, expected at most '
                             f'{LARGEST_THROUGH_LENS} pixels a side')
        if not np.all(np.isfinite(numbers)):
            raise ValueError(f'intrinsics: expected finite numbers, got fx fy cx cy distortion = {numbers}')
        if self.fx <= 0 or self.fy <= 0:
            raise ValueError(f'intrinsics: expected positive focal lengths, got fx={self.fx} fy={self.fy}')
        lengths = (4,) if self.fisheye else (0, 4, 5, 8, 12)
        if len(self.distortion) not in lengths:
            raise ValueError(f'intrinsics: {len(self.distortion)} coefficients of distortion, expected '
                             f'{" or ".join(map(str, lengths))}' + ' of a fisheye' * self.fisheye)

    @property
    def pinhole(self) -> bool:
        """Whether straight lines are straight in the picture."""
        return not self.fisheye and not any(self.distortion)

    def matrix(self) -> NDArray[np.float64]:
        """Return K, ``(3, 3)``."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    def scaled(self, width: int, height: int) -> Intrinsics:
        """Return the intrinsics of the same picture resized to ``width`` x ``height`` (pixel centres at integers)."""
        sx, sy = width / self.width, height / self.height
        return Intrinsics(
            width, height, self.fx * sx, self.fy * sy,
            (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5, self.distortion, self.fisheye,
        )


@dataclass(frozen=True)
class Pose:
    """An object's CAD frame in the camera optical frame.

    :param quaternion: ``(4,)`` xyzw; normalised and made w >= 0 here
    :param translation: ``(3,)`` metres
    :raises ValueError: for non-finite numbers, a zero quaternion (there is no default pose) or a place farther away
        than :data:`FARTHEST_M`
    """

    quaternion: NDArray[np.float64]
    translation: NDArray[np.float64]

    def __post_init__(self) -> None:
        translation = np.asarray(self.translation, dtype=np.float64)
        if translation.shape != (3,) or not np.all(np.isfinite(translation)):
            raise ValueError(f'pose: expected a finite translation of 3 numbers, got {self.translation}')
        if np.abs(translation).max() > FARTHEST_M:
            raise ValueError(f'pose: translation {translation.tolist()}, expected metres up to {FARTHEST_M:g}')
        object.__setattr__(self, 'quaternion', canonical_quaternion(self.quaternion))
        object.__setattr__(self, 'translation', translation)

    def matrix(self) -> NDArray[np.float64]:
        """Return the transform object -> camera, ``(4, 4)``."""
        transform = np.eye(4)
        transform[:3, :3] = matrix_from_quaternion(self.quaternion)
        transform[:3, 3] = self.translation
        return transform


@dataclass(frozen=True)
class ObjectLabel:
    """One labelled object of a simulated frame.

    :param name: class name
    :param box: ``(4,)`` xyxy, the *visible* part, pixels of the original image
    :param pose: object in the optical frame
    :param visible: visible fraction 0..1, or None when the simulator does not know
    :param mask: visible pixels, bool ``(H, W)``, or None
    """

    name: str
    box: NDArray[np.float64]
    pose: Pose
    visible: float | None = None
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Detection:
    """One object found by the networks.

    :param score: confidence 0..1
    :param box: ``(4,)`` xyxy in pixels of the original image
    :param pose: None where no pose could be computed: there is no default pose
    :param covariance: ``(6, 6)``, order x y z rx ry rz as geometry_msgs/PoseWithCovariance; None without a pose
    :param track: number of the instance among those of its class, the same from picture to picture; None: not tracked
    """

    name: str
    score: float
    box: NDArray[np.float64]
    pose: Pose | None = None
    covariance: NDArray[np.float64] | None = None
    track: int | None = None


@dataclass(frozen=True)
class Frame:
    """One unlabelled picture with its camera.

    :param stamp: nanoseconds of the clock of the side that made it; stamps of two sides are never compared
    :raises ValueError: for an image that is not uint8 ``(H, W, 3)`` or not of the intrinsics' size
    """

    image: NDArray[np.uint8]
    intrinsics: Intrinsics
    stamp: int = 0
    frame_id: str = ''

    def __post_init__(self) -> None:
        image = self.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f'frame: expected a uint8 RGB image (H, W, 3), got {image.dtype} {image.shape}')
        if image.shape[:2] != (self.intrinsics.height, self.intrinsics.width):
            raise ValueError(
                f'frame: the image is {image.shape[1]}x{image.shape[0]} but its camera_info is for '
                f'{self.intrinsics.width}x{self.intrinsics.height}; publish the camera_info of this image size'
            )


@dataclass(frozen=True)
class LabelledFrame:
    """A simulated picture and what is in it."""

    frame: Frame
    labels: tuple[ObjectLabel, ...]


@dataclass(frozen=True)
class ObjectModel:
    """What training and metrics need to know of an object: its surface and its symmetries.

    :param points: surface points in the CAD frame, ``(N, 3)`` float32, metres
    :param minimum: smallest corner of the CAD frame's axis-aligned box, ``(3,)`` metres
    :param size: extents of that box, ``(3,)`` metres
    :param diameter: largest distance between two surface points, metres
    :param symmetries: ``(K, 4, 4)`` transforms of the CAD frame that leave its look unchanged, identity first;
        a continuous symmetry is given in steps (BOP's ``symmetries_continuous``)
    """

    name: str
    points: NDArray[np.float32]
    minimum: NDArray[np.float64]
    size: NDArray[np.float64]
    diameter: float
    symmetries: NDArray[np.float64] = field(default_factory=lambda: np.eye(4)[None])

    @property
    def symmetric(self) -> bool:
        """Whether any symmetry besides the identity is declared."""
        return len(self.symmetries) > 1

    @property
    def middle(self) -> NDArray[np.float64]:
        """Centre of the box in the object's CAD frame, ``(3,)`` metres."""
        return self.minimum + self.size / 2

    def box_centre(self, pose: Pose) -> NDArray[np.float64]:
        """Return the centre of the oriented box in the camera frame, ``(3,)`` metres."""
        transform = pose.matrix()
        return transform[:3, :3] @ self.middle + transform[:3, 3]

    def at_distance(self, pose: Pose, factor: float) -> Pose:
        """Return a pose with the centre of the box on the same line of sight, so many times as far away."""
        return Pose(pose.quaternion, pose.translation + (factor - 1) * self.box_centre(pose))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the points as JSON-ready numbers."""
        return {
            'name': self.name,
            'minimum': [float(v) for v in self.minimum],
            'size': [float(v) for v in self.size],
            'diameter': float(self.diameter),
            'symmetries': np.asarray(self.symmetries, dtype=float).tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], points: NDArray[np.float32]) -> ObjectModel:
        """Build from :meth:`to_dict` and the points.

        :raises KeyError: when a field is missing
        """
        return cls(
            str(values['name']), np.asarray(points, dtype=np.float32), np.asarray(values['minimum'], dtype=float),
            np.asarray(values['size'], dtype=float), float(values['diameter']),
            np.asarray(values['symmetries'], dtype=float),
        )
