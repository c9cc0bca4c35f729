-- KEYS[1] a queue · ARGV[1] a cursor of HSCAN, '0' at first, [2] about so many
-- -> { next cursor, { record, note, begun }... }, nil where there is nothing: what waits or runs; not the parts of a canvas that come later
local answer = call('HSCAN', M, ARGV[1], 'COUNT', ARGV[2])
local found = { answer[1] }
for at = 1, #answer[2], 2 do
  local id = answer[2][at]
  if not get('w', id) then found[#found + 1] = { answer[2][at + 1], get('n', id), get('o', id) } end
end
return found
