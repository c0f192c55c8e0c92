using System.Globalization;
using System.Text;
using Mesh.ClusterMesh.Tests.Wire;
using Mesh.ClusterMesh.Wire;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Imports;

/// <summary>
/// Every decoder takes whatever bytes a peer can write: it accepts or rejects, and never throws. Inputs are sound values spoilt at
/// random (bytes flipped, pieces cut, doubled, swapped, numbers and nesting blown up) and, now and then, noise. MESH_FUZZ=1000000 gives
/// the number of inputs; MESH_FUZZ_SEED repeats a run.
/// </summary>
public sealed class FuzzTests
{
    private static readonly byte[][] Sound =
        [Bytes(Falcon.Node), Bytes(Falcon.Service), Bytes(Falcon.Ip), Bytes(Falcon.Identity), ClusterConfigCodec.Encode(Falcon.Config)];

    private static readonly byte[][] Pieces = [.. new[]
    {
        "null", "{}", "[]", "\"\"", "-1", "1e309", "18446744073709551616", "\\u0000", "\"\\ud800\"", "\u202e", "{\"a\":", "[[[[[[[[",
        "\"IP\":", "\"ID\":4294967295",
        "\"clusterID\":", "::ffff:1.2.3.4", "fe80::1%x", "0.0.0.0", "///////////////////////////////////8=", "}", "]", ",", "k8s:", ";;=", "\0",
    }.Select(Bytes)];

    private static readonly string[] SoundKeys = ["n1", "shop/cart", "10.7.0.9", "10.7.0.0/24", "fd07::9", "459001"];

    [Fact]
    public void No_bytes_make_a_decoder_throw()
    {
        var count = int.TryParse(Environment.GetEnvironmentVariable("MESH_FUZZ"), CultureInfo.InvariantCulture, out var wanted) ? wanted : 20_000;
        var seed = int.TryParse(Environment.GetEnvironmentVariable("MESH_FUZZ_SEED"), CultureInfo.InvariantCulture, out var given)
            ? given : Environment.TickCount;
        var random = new Random(seed);
        var validator = Falcon.Validator();
        var accepted = 0;
        for (var i = 0; i < count; i++)
        {
            var value = Spoil(random);
            var key = random.Next(4) == 0 ? Encoding.UTF8.GetString(Spoil(random)) : SoundKeys[random.Next(SoundKeys.Length)];
            try
            {
                accepted += Decode(validator, key, value);
            }
            catch (Exception e)
            {
                Assert.Fail($"input {i} of MESH_FUZZ_SEED={seed}: key {Convert.ToBase64String(Bytes(key))}, value {Convert.ToBase64String(value)}: {e}");
            }
        }
        // Neither is everything rejected, which would mean that the inputs never get past the first byte.
        Assert.True(accepted > count / 100, $"{accepted} of {count} accepted");
    }

    private static int Decode(RecordValidator validator, string key, byte[] value)
    {
        var accepted = 0;
        accepted += validator.TryNode(key, value, out _, out var rejection) ? 1 : Shown(rejection);
        accepted += validator.TryService(key, value, out _, out _, out rejection) ? 1 : Shown(rejection!);
        accepted += validator.TryIp(key, value, out _, out _, out rejection) ? 1 : Shown(rejection);
        accepted += validator.TryIdentity(key, value, out _, out _, out rejection) ? 1 : Shown(rejection);
        accepted += ClusterConfigCodec.TryDecode(value, out _, out rejection) ? 1 : Shown(rejection);
        _ = ParsedKey.Parse(key);
        RecordValidator.TryIpKey(key, out _);
        return accepted;
    }

    // A reason goes into status lines and logs.
    private static int Shown(string rejection) => rejection.Length is > 0 and < 600 && !rejection.Any(char.IsControl) ? 0
        : throw new InvalidOperationException($"a reason nobody should print: {Convert.ToBase64String(Bytes(rejection))}");

    private static byte[] Spoil(Random random)
    {
        if (random.Next(20) == 0)
        {
            var noise = new byte[random.Next(200)];
            random.NextBytes(noise);
            return noise;
        }
        var value = Sound[random.Next(Sound.Length)].ToList();
        for (var edits = random.Next(4); edits > 0; edits--)
        {
            var at = random.Next(value.Count + 1);
            switch (random.Next(6))
            {
                case 0 when at < value.Count: value[at] = (byte)random.Next(256); break;
                case 1: value.RemoveRange(at, Math.Min(random.Next(20), value.Count - at)); break;
                case 2: value.InsertRange(at, Pieces[random.Next(Pieces.Length)]); break;
                case 3: value.InsertRange(at, value.GetRange(at, Math.Min(random.Next(80), value.Count - at))); break;
                case 4: value.InsertRange(at, Enumerable.Repeat((byte)"[{9\" "[random.Next(5)], random.Next(2_000))); break;
                default: value.RemoveRange(at, value.Count - at); break;
            }
        }
        return [.. value];
    }

    private static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);
}
