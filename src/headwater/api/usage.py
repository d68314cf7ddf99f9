"""How a method is asked for: the commands, and its class in scikit-learn's API where it has one."""

from headwater.api import catalogue

WORDS = {
    "adapt": ["headwater adapt {name} --encoder RUN --data DATA --out OUT"],
    "curate": ["headwater curate {name} --data DATA --keep 1000 --out OUT"],
    "study": ["headwater study {name} --encoder RUN"],
}
OWN = {  # what asks for more, or in another way
    "bob": ["headwater compare RUN RUN --data DATA --out OUT"],
    "climb": ["headwater curate climb --data DATA --target DATA --keep 1000 --out OUT"],
    "krr-st": ["headwater curate krr-st --data DATA --encoder RUN --keep 1000 --out OUT"],
}


def usage(name: str) -> list[str]:
    """Lines to copy; capitals stand for what is the user's."""
    module = catalogue.load(name)
    slug, folder = catalogue.slug(module.__name__), catalogue.folder(module.__name__.removeprefix(catalogue.PREFIX))
    found = [words.format(name=slug) for words in OWN.get(slug, WORDS.get(folder, []))]
    if catalogue.method_class(module) is not None:
        found.append(f"headwater pretrain {slug} --data DATA --out OUT")
    for kind in (k for k in vars(module).values() if isinstance(k, type) and k.__module__ == module.__name__):
        if hasattr(kind, "partial_fit"):
            found.append(f"headwater continual {slug} --encoder RUN --data DATA --sessions 5 --out OUT")
        if hasattr(kind, "get_params"):
            found.append(f"hw.{folder}.{kind.__name__}()")
    return found
