"""App config of `stem_iso.integrations.django`: where Django is set up, the tasks of the project are found."""

from __future__ import annotations

from django import VERSION
from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class StemIsoConfig(AppConfig):
    """Imports the modules named `tasks` of installed apps. Raises whatever they raise."""

    name = "stem_iso.integrations.django"
    label = "stem_iso"
    verbose_name = "stem_iso"

    def ready(self) -> None:
        autodiscover_modules("tasks")
        if VERSION >= (6, 0):
            from stem_iso.integrations.django.backend import declare_all

            declare_all()
