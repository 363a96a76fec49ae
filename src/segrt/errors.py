"""The exceptions of segrt: one root, and one child for each case a caller may handle differently.

Each child also derives from the built-in exception that Python code expects in its place, so
`except ValueError` catches a wrong argument.
"""


class SegrtError(Exception):
    """Root of all errors raised by segrt. The message is one line and says how to fix the problem.

    Example:
        >>> try:
        ...     pipeline = segrt.create_pipeline(model_name="PP-LiteSeg-X")
        ... except segrt.SegrtError as error:
        ...     print(error)
    """


class ConfigError(SegrtError, ValueError):
    """An argument, a pipeline YAML or `model_zoo.yaml` is invalid."""


class InputError(SegrtError, ValueError):
    """An input (file, folder, array, ...) can't be read as an image."""


class TooLargeError(InputError):
    """An input has more pixels or bytes than allowed."""


class ModelError(SegrtError, ValueError):
    """A model is unknown, missing or damaged, or segrt can't run it."""


class DeviceError(SegrtError, RuntimeError):
    """The requested device or execution provider can't run here."""


class ExportError(SegrtError, RuntimeError):
    """A Paddle model can't be converted to ONNX, or the converted model disagrees with Paddle."""


class MissingExtraError(SegrtError, ImportError):
    """An optional package is required; the message contains the pip command that installs it."""


class DownloadError(SegrtError):
    """A model can't be downloaded, or the downloaded file is not the expected one."""
