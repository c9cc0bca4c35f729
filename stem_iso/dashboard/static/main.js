// What every page runs.

import "./times.js";
import "./live.js";
import "./actions.js";
import "./bulk.js";
import "./edit.js";
import "./stacks.js";
import "./keys.js";
import "./charts.js";
