-- KEYS[1] the own slot of a canvas · ARGV[1] when the relay began, [2] token, [3] tree, encoded, [4] seconds that it outlives the canvas
-- -> the token of who brought it, -1: that is long ago
--
-- P:tree {token, tree, keep}. It comes before all parts: who finds another's token composes what is composed already.
local token = call('HGET', P .. ':tree', 'token')
if token then return token end
if NOW > tonumber(ARGV[1]) + 60 then return -1 end
call('HSET', P .. ':tree', 'token', ARGV[2], 'tree', ARGV[3], 'keep', ARGV[4])
return ARGV[2]
