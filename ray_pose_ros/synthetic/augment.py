"""Image augmentation of one view: what cameras, codecs and hands do to pictures."""

import cv2
import numpy as np


def augment(rng: np.random.Generator, image: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """
    A disturbed copy of image (H, W, 3) uint8: exposure, white balance, gamma, saturation,
    vignetting, blur, noise, JPEG. strength scales how often and how much; 0 changes nothing.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'image {image.dtype} {image.shape}: expected uint8 (H, W, 3)')
    if strength <= 0:
        return image.copy()
    out = _colour(rng, image, strength)
    if rng.random() < 0.25 * strength:
        out = _blur(rng, out)
    if rng.random() < 0.3 * strength:
        out = _noise(rng, out, rng.uniform(1, 9) * strength)
    if rng.random() < 0.3 * strength:
        quality = int(rng.uniform(30, 95))
        _, data = cv2.imencode('.jpg', out, [cv2.IMWRITE_JPEG_QUALITY, quality])
        out = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return out


def _colour(rng, image, strength):
    """Exposure, white balance, gamma and contrast as one table a channel, then saturation."""
    x = np.arange(256, dtype=np.float32) / 255
    gamma = np.exp(rng.normal(0, 0.12 * strength))
    contrast = 1 + rng.normal(0, 0.1 * strength)
    gain = np.exp(rng.normal(0, 0.12 * strength))
    table = np.empty((256, 3), np.float32)
    for k in range(3):
        curve = (x * gain * np.exp(rng.normal(0, 0.06 * strength))) ** gamma
        table[:, k] = (curve - 0.5) * contrast + 0.5 + rng.normal(0, 0.01 * strength)
    table = np.clip(table * 255, 0, 255).astype(np.uint8)[None]
    table = np.ascontiguousarray(table.transpose(1, 0, 2))
    out = cv2.LUT(image, table)
    if rng.random() < 0.5 * strength:
        amount = np.clip(rng.normal(1, 0.3), 0.0, 1.8)
        mix = amount * np.eye(3) + (1 - amount) * np.array([[0.3, 0.59, 0.11]])
        out = cv2.transform(out, mix.astype(np.float32))
    if rng.random() < 0.2 * strength:
        h, w = out.shape[:2]
        y = np.linspace(-1, 1, h, dtype=np.float32)[:, None] + rng.normal(0, 0.2)
        x = np.linspace(-1, 1, w, dtype=np.float32)[None] + rng.normal(0, 0.2)
        fall = 1 - rng.uniform(0.05, 0.3) * (x * x + y * y).astype(np.float32)
        fall = np.clip(fall, 0.2, 1)
        out = cv2.multiply(out, cv2.merge([fall] * 3), dtype=cv2.CV_8U)
    return out


def _blur(rng, image):
    """Defocus (Gaussian), motion (a line), or loss of resolution."""
    kind = rng.random()
    h, w = image.shape[:2]
    if kind < 0.5:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4) * h / 224)
    if kind < 0.75:
        length = max(2, int(rng.uniform(2, 6) * h / 224))
        angle = rng.uniform(0, np.pi)
        kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
        dx, dy = int(length * np.cos(angle)), int(length * np.sin(angle))
        cv2.line(kernel, (length - dx, length - dy), (length + dx, length + dy), 1.0)
        return cv2.filter2D(image, -1, kernel / kernel.sum())
    factor = rng.uniform(0.4, 0.8)
    small = cv2.resize(
        image, (max(8, int(w * factor)), max(8, int(h * factor))), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)


def _noise(rng, image, sigma):
    """Grain about as strong as sigma codes; drawn as bytes because that is fast."""
    bits = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    grain = (bits.astype(np.int16) - 128) * np.float32(sigma / 74)
    return np.clip(image + grain, 0, 255).astype(np.uint8)
