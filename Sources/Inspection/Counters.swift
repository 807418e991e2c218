import Scenarios
import Stage2Sim

/// The counters of a machine since its daemon started. They only grow.
struct Counters {
  /// Reads and writes of the node.
  var reads: UInt64 = 0
  var writes: UInt64 = 0
  /// Reads and writes that failed because the guest did not run any more.
  var failures: UInt64 = 0
  /// Steps of the control file, and resets.
  var steps: UInt64 = 0
  var resets: UInt64 = 0
  /// Hidden bytes whose entry was replaced or emptied, and hidden bytes of which only some bits changed.
  var bytesLost: UInt64 = 0
  var bytesChanged: UInt64 = 0
  /// The counters of the hypervisor's events.
  var events = EventCounts()
  /// No counter: whether the last access has failed because the guest does not run any more.
  var isGuestStopped = false
}

/// The description of a counter in the two texts.
private struct Metric: Sendable {
  /// The name in `stats`.
  let name: String
  /// The name in `metrics`, without prefix and suffix. Counters that differ by a label are one metric there.
  let metric: String
  var label: (name: String, value: String)?
  let help: String
  let value: @Sendable (Counters) -> UInt64

  init(
    _ name: String, as metric: String? = nil, label: (name: String, value: String)? = nil,
    _ help: String, _ value: @escaping @Sendable (Counters) -> UInt64
  ) {
    self.name = name
    self.metric = metric ?? name
    self.label = label
    self.help = help
    self.value = value
  }

  static let all: [Metric] = [
    Metric("reads", "Reads of the node.") { $0.reads },
    Metric("writes", "Writes of the node.") { $0.writes },
    Metric("failures", "Reads and writes that failed with EIO: the guest did not run.") {
      $0.failures
    },
    Metric("steps", "Steps of the control file.") { $0.steps },
    Metric("resets", "Resets of the machine.") { $0.resets },
    Metric("guest_entries", "Entries into the guest.") { $0.events.entries },
    Metric("aborts", "Stage-2 aborts taken to EL2.") { $0.events.aborts },
    fault("translation") { $0.events.translationFaults },
    fault("access_flag") { $0.events.accessFlagFaults },
    fault("permission") { $0.events.permissionFaults },
    fault("address_size") { $0.events.addressSizeFaults },
    Metric("mmio_exits", "Accesses that KVM left to the VMM.") { $0.events.mmioExits },
    Metric("walks", "Walks of the hook, for HIDE and SEEK.") { $0.events.walks },
    Metric("visits", "Entries that the walks of the hook came to.") { $0.events.visits },
    tlb("ipa") { $0.events.invalidations },
    tlb("all") { $0.events.invalidationsOfAll },
    Metric("bytes_lost", "Hidden bytes whose entry was made anew or emptied.") { $0.bytesLost },
    Metric("bytes_changed", "Hidden bytes of which bits were changed in an entry that stayed.") {
      $0.bytesChanged
    },
    Metric("warnings", "Writes to entries that the kernel does not check.") { $0.events.warnings },
  ]

  private static func fault(_ kind: String, _ value: @escaping @Sendable (Counters) -> UInt64)
    -> Metric
  {
    Metric(
      "faults_\(kind)", as: "faults", label: ("kind", kind), "Stage-2 faults by kind.", value)
  }

  private static func tlb(_ scope: String, _ value: @escaping @Sendable (Counters) -> UInt64)
    -> Metric
  {
    Metric(
      "tlb_invalidations_\(scope)", as: "tlb_invalidations", label: ("scope", scope),
      "TLB invalidations that KVM asked for.", value)
  }
}

extension Counters {
  /// The file `stats`: a name and a number on each line, as in /proc/vmstat.
  var stats: String {
    Metric.all.map { "\($0.name) \($0.value(self))\n" }.joined()
      + "guest_stopped \(isGuestStopped ? 1 : 0)\n"
  }

  /// The file `metrics`, in the text format of Prometheus, version 0.0.4.
  ///
  /// - Parameters:
  ///   - node: The label of each sample.
  ///   - gauges: The values that are not counters: names, help texts and values.
  func metrics(node: String, gauges: [(name: String, help: String, value: UInt64)]) -> String {
    let node = "node=\"\(escaped(node))\""
    var text = ""
    var last = ""
    for metric in Metric.all {
      let name = "virt_walker_\(metric.metric)_total"
      if name != last {
        text += "# HELP \(name) \(metric.help)\n# TYPE \(name) counter\n"
        last = name
      }
      let label = metric.label.map { ",\($0.name)=\"\($0.value)\"" } ?? ""
      text += "\(name){\(node)\(label)} \(metric.value(self))\n"
    }
    for gauge in gauges {
      let name = "virt_walker_\(gauge.name)"
      text +=
        "# HELP \(name) \(gauge.help)\n# TYPE \(name) gauge\n\(name){\(node)} \(gauge.value)\n"
    }
    return text
  }

  private func escaped(_ value: String) -> String {
    value.map { character in
      ["\"": "\\\"", "\n": "\\n"][character]
        ?? String(character).printable.replacing("\\", with: "\\\\")
    }.joined()
  }
}
