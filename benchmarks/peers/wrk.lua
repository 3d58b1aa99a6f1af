-- wrk … -s wrk.lua URL -- FILE SIZE
-- Sends the ready-made requests of FILE in turn, each SIZE bytes long, and prints the result as one
-- line of JSON. Distinct bodies, so that no server can answer from a cache or join identical
-- requests. A single request is handed over once, as wrk does without a script: then no Lua runs.

local requests, turn = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local text = file:read("*a")
  file:close()
  local size = tonumber(args[2])
  for start = 1, #text, size do
    requests[#requests + 1] = text:sub(start, start + size - 1)
  end
  if #requests == 1 then
    request, wrk.format = nil, function() return requests[1] end
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "duration_s": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, '
      .. '"status_errors": %d, "socket_errors": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
