-- KEYS[1] a queue · ARGV[1] number of an outbox entry, [2] id of a canvas, [3] its first parts -> 1, 0 where the entry is gone
--
-- All parts are in their places: from now on the entry only says which of them begin.
allow_at_maxmemory()
if call('HEXISTS', P .. ':out', ARGV[1]) == 0 then return 0 end
call('HSET', P .. ':out', ARGV[1], frame('begin') .. frame(ARGV[2]) .. frame(ARGV[3]) .. string.rep(frame(), 4))
return 1
