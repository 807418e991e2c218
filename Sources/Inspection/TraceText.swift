import Scenarios
import Stage2Sim

/// The text format of ftrace (kernel/trace/trace.c and trace_output.c of Linux 6.1).
struct TraceFormat {
  /// The beginning of each line up to its time: task and pid, CPU, and flags, of which none is set.
  private let context: String

  /// - Parameters:
  ///   - task: The name of the task, at most 15 characters.
  ///   - pid: The number of the task.
  init(task: String, pid: Int32) {
    let number = "\(pid)"
    let rest = String(repeating: " ", count: max(0, 7 - number.utf8.count))
    context = "\(padded(task, to: 16))-\(number)\(rest) [000] ..... "
  }

  /// The head of `trace`.
  func header(kept: UInt64, written: UInt64) -> String {
    """
    # tracer: nop
    #
    # entries-in-buffer/entries-written: \(kept)/\(written)   #P:1
    #
    #                                _-----=> irqs-off/BH-disabled
    #                               / _----=> need-resched
    #                              | / _---=> hardirq/softirq
    #                              || / _--=> preempt-depth
    #                              ||| / _-=> migrate-disable
    #                              |||| /     delay
    #           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
    #              | |         |   |||||     |         |

    """
  }

  func line(_ entry: EventStream.Entry, of events: EventStream) -> String {
    let text: String
    switch entry.event {
    // A real kernel has written the whole line.
    case .traced(let line): return "\(events.text(of: line))\n"
    case .text(let line): text = "console: \(events.text(of: line))"
    default: text = entry.event.traceText
    }
    return "\(context)\(timestamp(entry.time)): \(text)\n"
  }

  /// The line in the place of events that were overwritten before a reader came to them.
  static func lostLine(_ count: UInt64) -> String { "CPU:0 [LOST \(count) EVENTS]\n" }
}

extension MachineEvent {
  /// The name and the fields of the event. An event that is no tracepoint of the kernel has a name that begins with
  /// `virt_walker_`.
  var traceText: String {
    switch self {
    case .tracepoint(let tracepoint): "\(tracepoint.name): \(tracepoint)"
    case .visit(let visit):
      "virt_walker_visit: level \(visit.level) table \(hex(visit.table)) index \(visit.index) entry \(visit.descriptor)"
    case .hook(.byteWritten(let byte, let old, let new)):
      "virt_walker_hide: byte \(hex(UInt64(byte), digits: 2)) entry \(old) -> \(new)"
    case .hook(.byteRead(let byte, let entry)):
      "virt_walker_seek: byte \(hex(UInt64(byte), digits: 2)) entry \(entry)"
    case .invalidation(let ipa, let level):
      "virt_walker_tlbi: ipa \(hex(ipa)) level \(level)"
    case .localInvalidation(let ipa, let level):
      "virt_walker_tlbi: ipa \(hex(ipa)) level \(level) local"
    case .invalidationOfRange(let ipa, let pages):
      "virt_walker_tlbi: ipa \(hex(ipa)) pages \(pages)"
    case .invalidationOfAll: "virt_walker_tlbi: all"
    case .dataCacheClean(let physical, let size):
      "virt_walker_dcache: address \(hex(physical)) size \(hex(size))"
    case .instructionCacheInvalidation(let physical, let size):
      "virt_walker_icache: address \(hex(physical)) size \(hex(size))"
    case .warning(let warning): "virt_walker_warning: \(warning)"
    // The tracepoint of printk().
    case .log(let message): "console: \(message)"
    // The first two are not in the trace (``EventStream``), and the stream has the text of the others.
    case .abort, .guestStopped, .text, .traced: ""
    }
  }
}
