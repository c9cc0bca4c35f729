-- KEYS[1] a queue · ARGV[1] id, [2] its record as it was read, [3] the same, due now, [4] nonce
-- -> 'ok', 'changed' (another record, or none), 'not-delayed'
--
-- Its place in line is that of one that comes now. Sent again after a lost answer, it finds its nonce beside the task, which is 'ok' too.
allow_at_maxmemory()
local id, stored, record, nonce = unpack(ARGV)
if get('h', id) == nonce then return 'ok' end
if call('HGET', M, id) ~= stored then return 'changed' end
local due = tonumber(call('ZSCORE', D, id) or '')
if not due or due <= NOW or get('b', id) then return 'not-delayed' end
call('HSET', M, id, record)
put('h', id, nonce)
ready(id, rank(record))
leave_token()
call('ZREM', D, id)
return 'ok'
