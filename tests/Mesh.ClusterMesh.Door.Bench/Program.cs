using Mesh.ClusterMesh.Door.Bench;

return args switch
{
    ["serve", var etcd, var directory] => await DoorProcess.ServeAsync(etcd, directory),
    ["fanout", .. var rest] => await DoorFanOut.RunAsync(rest),
    _ => Usage(),
};

static int Usage()
{
    Console.Error.WriteLine("fanout [watchers=1000] [connections=100] [changes/s=100] [seconds=10] [rounds=3]");
    return 2;
}
