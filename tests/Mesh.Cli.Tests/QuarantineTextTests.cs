using Mesh.AgentApi;
using Mesh.Cli.Commands;
using Xunit;

namespace Mesh.Cli.Tests;

public sealed class QuarantineTextTests
{
    [Fact]
    public void A_peer_is_a_line_and_each_refused_record_a_row()
    {
        var now = new DateTimeOffset(2026, 1, 31, 8, 15, 0, TimeSpan.Zero);
        var text = QuarantineCommand.Table(
        [
            new PeerQuarantine
            {
                Name = "tokyo",
                Quarantined = 1,
                Overflow = 3,
                Held = 40,
                HeldReason = "40 of 40 Services held since 08:14:00Z: they vanished",
                Records =
                [
                    new QuarantinedRecord
                    {
                        Resource = "ips",
                        Key = "cilium/state/ip/v1/default/10.9.0.1\u001b[2J",
                        Reason = "address",
                        Message = "10.9.0.1/32 is outside its ranges",
                        Revision = 17,
                        FirstSeen = now - TimeSpan.FromSeconds(90),
                        LastSeen = now - TimeSpan.FromSeconds(5),
                        Count = 2,
                    },
                ],
            },
            new PeerQuarantine { Name = "kyoto" },
        ], now);
        Assert.Equal("""
            tokyo: 1 records in quarantine, 3 refusals found no room, 40 withdrawals held
               └  40 of 40 Services held since 08:14:00Z: they vanished
               REASON    KEY                                       REVISION   COUNT   FIRST SEEN   LAST SEEN   MESSAGE
               address   cilium/state/ip/v1/default/10.9.0.1?[2J   17         2       1m30s ago    5s ago      10.9.0.1/32 is outside its ranges
            kyoto: 0 records in quarantine, 0 withdrawals held

            """, text);
        Assert.Equal("no peers\n", QuarantineCommand.Table([], now));
    }
}
