// Labs share the machine: one at a time keeps times short and lists comparable.
[assembly: Xunit.CollectionBehavior(DisableTestParallelization = true)]
