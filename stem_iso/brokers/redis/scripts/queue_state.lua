-- KEYS[1] a queue · ARGV[1] the life of a dead letter, seconds
-- -> { now, delayed, running, dead, when the first came due of those that nobody has moved yet | '',
--      { how many are ready by priority 0..9 }, { head, begun } of the first one in each list ... }
--
-- What is ready is counted by the lists. Where they name more than lives (what was revoked lies there until it is met), the short ones are
-- read, and the long ones share what remains.
local READ, DUE, FIRST, STEP = 1000, 50, 200, 20

local sizes, counts, lines, sum = {}, {}, {}, 0
for priority = 0, 9 do
  sizes[priority] = call('LLEN', P .. ':r' .. priority)
  counts[priority] = sizes[priority]
  sum = sum + sizes[priority]
  if sizes[priority] > 0 then lines[#lines + 1] = priority end
end
local running = call('HLEN', L)
local left = math.max(0, call('HLEN', M) - call('HLEN', P .. ':w') - running - call('ZCARD', D))

local met = {}

local function standing(ids) -- of these, those that are ready
  local found, leases, dues = {}, call('HMGET', L, unpack(ids)), call('ZMSCORE', D, unpack(ids))
  for k, id in ipairs(ids) do
    if not met[id] and not leases[k] and not dues[k] and call('HEXISTS', M, id) == 1 and not get('w', id) then
      met[id] = true
      found[#found + 1] = id
    end
  end
  return found
end

if sum > left then
  table.sort(lines, function(one, other) return sizes[one] < sizes[other] end)
  local budget, long, shares = READ, {}, 0
  for _, priority in ipairs(lines) do
    if sizes[priority] <= budget then
      budget = budget - sizes[priority]
      counts[priority] = #standing(call('LRANGE', P .. ':r' .. priority, 0, -1))
      left = math.max(0, left - counts[priority])
    else
      long[#long + 1] = priority
      shares = shares + sizes[priority]
    end
  end
  for _, priority in ipairs(long) do
    counts[priority] = math.min(sizes[priority], math.floor(left * sizes[priority] / shares + 0.5))
    left, shares = left - counts[priority], shares - sizes[priority]
  end
end

-- What has come due is ready, though nobody has moved it yet. Of very many, the last ones that were read stand for the others.
local due = call('ZRANGEBYSCORE', D, '-inf', number(NOW), 'WITHSCORES', 'LIMIT', 0, DUE)
local come, last = call('ZCOUNT', D, '-inf', number(NOW)), 0
for i = 1, #due, 2 do
  last = rank(call('HGET', M, due[i]))
  counts[last] = counts[last] + 1
end
counts[last] = counts[last] + math.max(0, come - #due / 2)

met = {}
local heads = {}
for _, priority in ipairs(lines) do
  local first
  for from = 0, math.min(sizes[priority], FIRST) - 1, STEP do
    first = standing(call('LRANGE', P .. ':r' .. priority, from, from + STEP - 1))[1]
    if first then break end
  end
  if first then heads[#heads + 1] = { parse(call('HGET', M, first)).head, get('o', first) } end
end

local ready = {}
for priority = 0, 9 do ready[priority + 1] = counts[priority] end
local dead = call('ZCOUNT', P .. ':xd', '(' .. number(NOW - tonumber(ARGV[1])), '+inf')
return { number(NOW), call('ZCARD', D) - come, running, dead, due[2] or '', ready, heads }
