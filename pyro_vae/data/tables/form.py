"""How a table was written, which what comes out of a model follows."""

from dataclasses import dataclass

SEPARATORS = (",", ";", "\t", "|", " ")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1")
FILES = ("frame", "csv", "parquet", "feather")
HEADERS = ("names", "numbers", "none")


@dataclass(frozen=True)
class Form:
    """How a table was written.

    Attributes:
        file: "csv" for any text with a separator, "parquet", "feather", or "frame" of one in memory.
        separator: Between the cells of a text; a space stands for any number of them.
        decimal: The decimal mark of numbers in a text.
        encoding: Of a text.
        newline: What ends a line of a text.
        header: "names", "numbers" where a data frame's columns are called by whole numbers, or "none" of a text
            without a line of names, whose columns are called column 1, column 2, ….
        padded: Whether a space follows each separator of a text, which then is no part of the cells.
    """

    file: str = "frame"
    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    newline: str = "\n"
    header: str = "names"
    padded: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("file", FILES), ("separator", SEPARATORS), ("decimal", (".", ",")), ("encoding", ENCODINGS),
            ("newline", ("\n", "\r\n", "\r")), ("header", HEADERS),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}")

    @property
    def suffix(self) -> str:
        """The ending of such a file."""
        return self.file if self.file in ("parquet", "feather") else "tsv" if self.separator == "\t" else "csv"

    def describe(self) -> str:
        """Return in a few words how the table was written.

        Example:
            >>> Form("csv", separator=";", decimal=",", encoding="cp1252").describe()
            "csv, separated by ';', decimals after ',', in cp1252"
        """
        if self.file != "csv":
            return {"frame": "a data frame"}.get(self.file, self.file)
        separated = {"\t": "tabs", " ": "spaces"}.get(self.separator, repr(self.separator + " " * self.padded))
        decimals = "" if self.decimal == "." else f", decimals after {self.decimal!r}"
        names = "" if self.header != "none" else ", without a line of names"
        return f"{self.file}, separated by {separated}{decimals}, in {self.encoding}{names}"
