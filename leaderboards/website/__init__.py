"""Website: boards, entries and sets as static pages."""
