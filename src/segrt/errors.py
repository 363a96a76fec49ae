"""The exceptions of segrt: one root, and a child for each thing that a caller may want to handle differently."""


class SegrtError(Exception):
    """Root of everything that segrt raises on purpose; the message is one line and says what to do next."""


class ConfigError(SegrtError):
    """A setting, a pipeline YAML or `model_zoo.yaml` is wrong; also an argument with a value that is not allowed."""


class InputError(SegrtError):
    """An input (file, folder, array, ...) can't be read as an image."""


class TooLargeError(InputError):
    """An input has more pixels or bytes than are allowed."""


class ModelError(SegrtError):
    """A model is unknown, not there, damaged, or not one that segrt can run."""


class DeviceError(SegrtError):
    """The device or execution provider that was named can't run here."""


class ExportError(SegrtError):
    """A Paddle model could not be converted to ONNX, or the result does not agree with Paddle."""


class MissingExtraError(SegrtError):
    """An optional package is needed; the message holds the pip command that brings it."""


class DownloadError(SegrtError):
    """A model could not be downloaded, or what came is not what was asked for."""
