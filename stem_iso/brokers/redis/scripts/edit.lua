-- KEYS[1] a queue · ARGV[1] id, [2] its record as it was read, [3] the record of its next run, [4] nonce
-- -> 'ok', 'changed' (another record, or none), 'running', 'canvas' (a part of one)
--
-- It stays where it stands: in line, delayed, or in the line of a limit. Sent again after a lost answer, it finds its nonce beside the task.
allow_at_maxmemory()
local id, stored, record, nonce = unpack(ARGV)
if get('h', id) == nonce then return 'ok' end
if call('HGET', M, id) ~= stored then return 'changed' end
if call('HEXISTS', L, id) == 1 then return 'running' end
if get('t', id) then return 'canvas' end
call('HSET', M, id, record)
put('h', id, nonce)
local sound, why = pcall(unframe, get('b', id) and get('y', id) or '', 2)
if sound then put('y', id, frame(why[1]) .. frame('')) else drop('y', id) end -- it waits for the same, after no failure
drop('c', id)
drop('p', id)
if has('qr') then call('ZREM', QR, id) end
return 'ok'
