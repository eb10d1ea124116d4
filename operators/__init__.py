"""The operators, one a file; installed as `lisabench.operators` and loaded by name through `lisabench.registry`."""

if __name__ != "lisabench.operators":
    raise ImportError(
        f"this folder is the package lisabench.operators, not {__name__!r}; install lisabench and use `lisabench.registry.load`"
    )
