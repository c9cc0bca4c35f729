"""Programs that use stem_iso as its users do: a scanner of real files, and handlers that behave as badly as they can."""
