"""`stem-iso top`: workers, isolates, queues, time-outs and failures as they stand, with keys to steer them.

    reader ── Snapshot, once a second ──> panes ── Pane: columns and rows ──┬──> plain    lines, where there is no terminal
      │  └── events ──> recent                                              └──> screen   the full screen (textual)
      │                                                                                    │ key, question, yes
    broker <────────────────────────────────────────────── actions <───────────────────────┘

    command    the click command, and which of the two ways to show
    snapshot   what was read in one moment
    recent     the last time-outs and failures
    reader     the thread that reads
    figures    durations, sizes, bars as text
    grid       columns and rows that fit a width
    panes      a snapshot as columns and rows
    plain      panes as lines
    actions    what a key does to a row: the question, and the deed
    theme      colours, dark and light; background asks the terminal which of the two it is
    screen     the application of textual; view, dialogs are its widgets, texts what they say, stylesheet how they are laid out

Rules
 1. Only `screen`, `view`, `dialogs` and `stylesheet` import textual, and only `command` imports these, when they are to be shown.
 2. `figures`, `grid`, `panes`, `recent`, `texts` are pure: what is shown is a function of a snapshot, the time and the filter.
 3. The loop of the screen never asks a broker. One thread reads, and each deed has a thread of its own.
 4. Names and messages are anybody's: each passes `printable` before it becomes a cell, and nothing here reads markup.
 5. No colour says anything that a word or a sign does not say too.
"""
