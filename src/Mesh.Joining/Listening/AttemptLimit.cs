using System.Net;

namespace Mesh.Joining.Listening;

/// <summary>
/// How often an address may fail to prove itself: ten times a minute, then it is not listened to until the minute is over. Guessing a
/// secret of 256 bits is hopeless anyway; this keeps the log and the processor quiet. Others are not held up.
/// </summary>
internal sealed class AttemptLimit(TimeProvider time)
{
    private const int FailuresMax = 10;
    private const int AddressesMax = 4096;
    private static readonly TimeSpan Window = TimeSpan.FromMinutes(1);
    private readonly Lock _gate = new();
    private readonly Dictionary<IPAddress, (int Count, long Since)> _failures = [];

    public bool IsExhausted(IPAddress address)
    {
        lock (_gate)
            return _failures.TryGetValue(address, out var failures) && failures.Count >= FailuresMax && time.GetElapsedTime(failures.Since) < Window;
    }

    public void Failed(IPAddress address)
    {
        lock (_gate)
        {
            if (_failures.Count >= AddressesMax)
            {
                foreach (var old in _failures.Where(pair => time.GetElapsedTime(pair.Value.Since) >= Window).Select(pair => pair.Key).ToList())
                    _failures.Remove(old);
                // All of one minute: whoever sends from so many addresses is not slowed by a longer list.
                if (_failures.Count >= AddressesMax)
                    _failures.Clear();
            }
            _failures[address] = _failures.TryGetValue(address, out var failures) && time.GetElapsedTime(failures.Since) < Window
                ? (failures.Count + 1, failures.Since) : (1, time.GetTimestamp());
        }
    }
}
