-- KEYS[1] a queue that nobody has used for long -> 1 where it holds nothing that anybody could miss: no task, no dead letter, nothing to be
-- handed on. What is left of its wake-up token, its counter and its news goes with it: a queue whose name is forgotten leaves no key.
if call('EXISTS', M, P .. ':x', P .. ':out') > 0 then return 0 end
call('DEL', P .. ':g', P .. ':on', P .. ':ol', P .. ':a', P .. ':seen', QA, QR, P .. ':q3', P .. ':q4', P .. ':q5', P .. ':qp')
return 1
