// What every page runs.

import "./times.js";
import "./live.js";
import "./actions.js";
import "./bulk.js";
import "./edit.js";
import "./stacks.js";
import "./keys.js";
import "./charts.js";

// Where the pages stand in one line that is wider than the screen, the one that is open is in sight.
document.querySelector(".nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
