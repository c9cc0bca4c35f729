-- KEYS[1] a queue -> 1 where it holds nothing that anybody could miss: no task, no dead letter, nothing to be handed on or told
return call('EXISTS', M, P .. ':x', P .. ':out', P .. ':a') == 0 and 1 or 0
