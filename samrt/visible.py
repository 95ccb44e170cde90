"""Text out of files, made fit for a terminal, a log and a page: the one place that does it.

Names in manifests, graphs, data sets and checkpoints are chosen by whoever made the file, and libraries quote them in
their errors. A control character among them moves the cursor, hides what stands before it or begins a line of its own.
"""

from __future__ import annotations

import re

# Controls of ASCII and of Latin-1; soft hyphens and other characters without a width, except the two joiners that
# Persian, Hindi and emoji are written with; line and paragraph separators; what turns the direction of writing; halves
# of surrogate pairs; tags.
_UNFIT = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
# Longer than any message of samrt; two names of files as long as Linux allows fit.
LONGEST = 4096
# For the cell of a table, whose column is as wide as its longest: the longest name of a file fits.
CELL = 256
_END = 1024


def visible(text: str, longest: int = LONGEST) -> str:
    """The text in one line: what would not be seen as `\\x1b`, and of more than `longest` characters both ends.

    Text that went through here before comes out as it is.
    """
    if len(text) > longest:
        # The end of an error says what to do.
        end, left_out = min(_END, longest // 4), f" [{len(text) - longest} characters] "
        text = text[: longest - end - len(left_out)] + left_out + text[-end:]
    return _UNFIT.sub(lambda match: ascii(match[0])[1:-1], text)
