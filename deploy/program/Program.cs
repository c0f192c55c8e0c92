// One native program under four names. Most of each is the same, the runtime, TLS, gRPC and the wire formats: so it is compiled to native
// code once. The name that it is called by says which of them it is.
var name = Path.GetFileName(Environment.GetCommandLineArgs()[0]);
return name switch
{
    "mesh-agent" => await Mesh.Agent.Program.Main(args),
    // Where Cilium's CLI sends people whose relay is not connected: the same look at the same files as in an agent's pod.
    "clustermesh-apiserver" when args is ["kvstoremesh-dbg", "troubleshoot", .. var peers] =>
        await Mesh.Cli.Program.Main(["clustermesh", "troubleshoot", .. peers]),
    "clustermesh-apiserver" => await Mesh.ClusterMesh.ApiServer.Program.Main(args),
    "mesh-operator" => await Mesh.Operator.Program.Main(args),
    // A program of its own at Cilium's, a word of ours.
    "cilium-health" => await Mesh.Cli.Program.Main(["health", .. args]),
    // mesh, and as cilium and cilium-dbg.
    _ => await Mesh.Cli.Program.Main(args),
};
