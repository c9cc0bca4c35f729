-- KEYS[1] a queue that nobody has used for long -> 1 where it holds nothing that anybody could miss: no task, no dead letter, nothing to be
-- handed on or told. Its baton and its counter go with it, so that a queue whose name is forgotten leaves no key.
if call('EXISTS', M, P .. ':x', P .. ':out', P .. ':a') == 1 then return 0 end
call('DEL', P .. ':g', P .. ':on', P .. ':seen')
return 1
