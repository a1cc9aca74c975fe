"""Extractors from their configurations: what a checkpoint or a YAML says, checked, imported and made."""

import importlib
import inspect
from collections.abc import Mapping

from ser_lightning.allow_list import refuse_foreign_classes
from ser_lightning.errors import ConfigurationError
from ser_lightning.features.extractor import FeatureExtractor


def build_extractor(configuration: Mapping[str, object]) -> FeatureExtractor:
    """Return the extractor that ``FeatureExtractor.configuration`` described.

    Raises:
        ConfigurationError: If a class lies outside the allow-list (nothing is imported then), does not exist, is no
            extractor, or does not take the arguments.
    """
    refuse_foreign_classes(configuration, "feature extractor")
    return build_trusted_extractor(configuration)


def build_trusted_extractor(configuration: Mapping[str, object]) -> FeatureExtractor:
    """As ``build_extractor``, for a configuration that a live extractor of this process gave."""
    class_path, arguments = configuration.get("class_path"), configuration.get("init_args", {})
    if not isinstance(class_path, str) or "." not in class_path or not isinstance(arguments, Mapping):
        raise ConfigurationError(
            f"feature extractor: expected class_path (a dotted name) and init_args (a mapping), got {configuration}"
        )
    module_name, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"feature extractor: there is no class '{class_path}' ({error})") from error
    if not (inspect.isclass(found) and issubclass(found, FeatureExtractor)) or inspect.isabstract(found):
        raise ConfigurationError(f"feature extractor: '{class_path}' is no FeatureExtractor")
    values = {
        str(key): build_trusted_extractor(value) if isinstance(value, Mapping) and "class_path" in value else value
        for key, value in arguments.items()
    }
    try:
        inspect.signature(found).bind(**values)
    except TypeError as error:
        raise ConfigurationError(f"feature extractor {class_path}: init_args do not fit: {error}") from error
    return found(**values)
