"""Templates of the pages that commands write, filled in by Jinja2; every value in HTML is escaped."""

from jinja2 import Environment, PackageLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=PackageLoader(__name__, "."),
    autoescape=lambda name: name is None or ".md" not in name,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: object) -> str:
    """The text of a template of this folder."""
    return _ENVIRONMENT.get_template(template).render(**values)
