using Mesh.AgentApi;
using Mesh.Cli.Commands.Policies;
using Xunit;

namespace Mesh.Cli.Tests;

public class PolicyTextTests
{
    [Fact]
    public void A_list_shows_rules_what_is_not_done_and_who_is_governed() => Assert.Equal(
        """
        POLICY                         RULE              DIRECTION   ACTION   PEERS         PORTS    PACKETS
        CiliumNetworkPolicy shop/web   spec.ingress[0]   ingress     allow    any:app=web   80/TCP   12

        ! CiliumNetworkPolicy shop/web: spec.ingress[1].toPorts[0].rules is not done here: these ports are not allowed

        ENDPOINT   POD          IDENTITY   INGRESS    EGRESS   ROWS
        7          shop/web-1   65538      enforced   open     3
        Revision: 4

        """, PolicyCommand.Table(new PolicyReport
        {
            Revision = 4,
            Objects =
            [
                new PolicyObjectReport
                {
                    Kind = "CiliumNetworkPolicy", Namespace = "shop", Name = "web",
                    Rules =
                    [
                        new PolicyRuleReport { Field = "spec.ingress[0]", Direction = "ingress", Peers = ["any:app=web"], Ports = ["80/TCP"], Packets = 12 },
                    ],
                    Unsupported = ["spec.ingress[1].toPorts[0].rules is not done here: these ports are not allowed"],
                },
            ],
            Endpoints = [new PolicyEndpointReport { Id = 7, Pod = "shop/web-1", Identity = 65538, Ingress = "enforced", Egress = "open", Rows = 3 }],
        }));

    [Fact]
    public void A_trace_names_the_rule_the_map_entry_and_where_they_differ() => Assert.Equal(
        """
        shop/client, identity 65537
          -> shop/web, identity 65538, 80/TCP
        ingress of shop/web (endpoint 7): allowed: allowed by CiliumNetworkPolicy shop/web spec.ingress[0]
           allows  CiliumNetworkPolicy shop/web spec.ingress[0]
           passes over CiliumNetworkPolicy shop/web spec.ingress[1] (other ports)
           kernel: policy_endpoints[7].ingress = open  <-- differs: the map denies it
        Final verdict: ALLOWED

        """, PolicyCommand.Text(new PolicyTraceReport
        {
            Source = "shop/client, identity 65537",
            Destination = "shop/web, identity 65538",
            Port = "80/TCP",
            Verdict = "ALLOWED",
            Ends =
            [
                new PolicyEndReport
                {
                    Direction = "ingress", Endpoint = 7, Pod = "shop/web", Allowed = true, Enforced = true,
                    Reason = "allowed by CiliumNetworkPolicy shop/web spec.ingress[0]",
                    Rules =
                    [
                        new PolicyConsideredReport { Rule = "CiliumNetworkPolicy shop/web spec.ingress[0]", MeansPeer = true, MeansPort = true },
                        new PolicyConsideredReport { Rule = "CiliumNetworkPolicy shop/web spec.ingress[1]", MeansPeer = true },
                    ],
                    Kernel = new PolicyKernelReport { Entry = "policy_endpoints[7].ingress = open" },
                },
            ],
        }));
}
