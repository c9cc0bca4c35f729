-- KEYS[1] a queue -> 1 where it holds nothing that anybody could miss: no task, no dead letter, nothing to be handed on. What ended apart
-- is forgotten after a minute; who asks this asks after a week.
return call('EXISTS', M, P .. ':x', P .. ':out') == 0 and 1 or 0
