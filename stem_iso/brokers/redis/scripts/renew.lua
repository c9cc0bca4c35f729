-- KEYS[1] a queue · ARGV[1] default visibility, then (id, token) for each
-- -> { places from 0 of those that are lost }
--
-- A lease's end never moves backwards.
allow_at_maxmemory()
local lost, ends = {}, {}
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local lease = call('HGET', L, id)
  if holds(lease, ARGV[i + 1]) then
    local _, _, own = leased(lease)
    local till = number(NOW + (own or tonumber(ARGV[1])))
    ends[#ends + 1] = till
    ends[#ends + 1] = id
  else
    lost[#lost + 1] = (i - 2) / 2
  end
end
slices(ends, function(first, last) call('ZADD', Z, 'GT', unpack(ends, first, last)) end)
return lost
