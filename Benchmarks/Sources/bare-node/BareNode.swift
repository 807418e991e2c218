// The device at a node, without the processes and the sandbox of virt-walkerd.
//
// usage: bare-node FILE                 (until SIGTERM) The machine without trace, logs and counters. The difference to virt-walkerd is
//                                       their price.
//        bare-node FILE --inspected     With trace, logs and counters. The server sleeps at once after a request. For callgrind, which
//                                       cannot write its results in a sandbox.
import CharacterDeviceServer
import Glibc
import Inspection
import Scenarios
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

@main
struct BareNode {
  static func main() throws {
    let path = FilePath(CommandLine.arguments[1])
    let signals = try TerminationSignals()
    let engine = try ModelEngine(MachineDescription(.init()), driver: VirtWalkerDriver.self)
    if CommandLine.arguments.dropFirst(2).first == "--inspected" {
      let device = InspectedDevice(
        engine, node: path.string, task: ("bare-node", getpid()),
        clock: { now(CLOCK_MONOTONIC) }, cpuClock: { now(CLOCK_THREAD_CPUTIME_ID) })
      try serve(device, at: path, waiting: AdaptiveWait(.never), signals)
    } else {
      engine.virtualMachine.events = nil
      // The loop waits as virt-walkerd does.
      try serve(engine, at: path, waiting: AdaptiveWait(), signals)
    }
  }

  private static func serve(
    _ device: some SimpleDevice, at path: FilePath, waiting: AdaptiveWait,
    _ signals: TerminationSignals
  ) throws {
    let server = try FUSEServer(
      path: path, application: Application(name: "bare-node"), device: device)
    defer { server.close() }
    let loop = try EventLoop(waiting: waiting)
    try loop.add(server) { if $0 == .end { loop.stop() } }
    try loop.add(signals.descriptor) { loop.stop() }
    try FileDescriptor.standardOutput.writeAll("ready\n".utf8)
    try loop.run()
  }

  private static func now(_ clock: clockid_t) -> UInt64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
