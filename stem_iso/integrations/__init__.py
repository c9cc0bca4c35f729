"""Integrations: what joins stem_iso to frameworks and services, one file each, imported only where it is used."""
