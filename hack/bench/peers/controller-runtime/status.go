package main

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	pending    = "Pending"
	scheduling = "Scheduling"
	scheduled  = "Scheduled"
	running    = "Running"
	failed     = "Failed"
	stopped    = "Stopped"

	historyLimit = 50
)

type step struct {
	phase string
	at    metav1.Time
}

// verdict is the Ready condition without its transition time.
type verdict struct {
	ready           bool
	reason, message string
}

func done(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func phaseOf(pod *corev1.Pod) string {
	switch {
	case done(pod):
		return failed
	case pod.Status.Phase == corev1.PodRunning:
		return running
	case pod.Spec.NodeName != "":
		return scheduled
	default:
		return scheduling
	}
}

func conditionOf(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// progressing returns whether a pod is starting without a problem to publish.
func progressing(pod *corev1.Pod) bool {
	bound := conditionOf(pod, corev1.PodScheduled)
	stuck := bound != nil && bound.Status == corev1.ConditionFalse
	phase := phaseOf(pod)
	return (phase == scheduling || phase == scheduled) && pod.DeletionTimestamp == nil && !stuck
}

// stepsOf are the phases that a pod is known to have passed.
func stepsOf(pod *corev1.Pod, now metav1.Time) []step {
	steps := []step{{scheduling, pod.CreationTimestamp}}
	if pod.Spec.NodeName != "" {
		at := pod.CreationTimestamp
		if bound := conditionOf(pod, corev1.PodScheduled); bound != nil && !bound.LastTransitionTime.IsZero() {
			at = bound.LastTransitionTime
		}
		steps = append(steps, step{scheduled, at})
	}
	if pod.Status.Phase == corev1.PodRunning {
		at := now
		if ready := conditionOf(pod, corev1.PodReady); ready != nil && ready.Status == corev1.ConditionTrue {
			at = ready.LastTransitionTime
		} else if pod.Status.StartTime != nil {
			at = *pod.Status.StartTime
		}
		steps = append(steps, step{running, at})
	}
	if done(pod) {
		steps = append(steps, step{failed, now})
	}
	return steps
}

func readiness(pod *corev1.Pod) verdict {
	if pod.DeletionTimestamp != nil {
		return verdict{reason: "PodTerminating", message: "Pod " + pod.Name + " is being deleted"}
	}
	if done(pod) {
		return verdict{reason: "PodFailed", message: "Pod " + pod.Name + " ended as " + string(pod.Status.Phase)}
	}
	ready := conditionOf(pod, corev1.PodReady)
	if pod.Status.Phase == corev1.PodRunning && ready != nil && ready.Status == corev1.ConditionTrue {
		return verdict{ready: true, reason: "GuestRunning"}
	}
	if bound := conditionOf(pod, corev1.PodScheduled); bound != nil && bound.Status == corev1.ConditionFalse {
		return verdict{reason: bound.Reason, message: bound.Message}
	}
	return verdict{reason: "GuestNotRunning", message: "Pod " + pod.Name + " is not ready yet"}
}

var progress = map[string]int{scheduling: 1, scheduled: 2, running: 3, failed: 4}

// newSteps are the steps of a pod that the status does not contain yet.
func newSteps(status *VirtualMachineStatus, incarnation int32, pod *corev1.Pod, now metav1.Time) []step {
	reached := 0
	if status.Incarnation != nil && *status.Incarnation == incarnation && (status.Phase != failed || done(pod)) {
		reached = progress[status.Phase]
	}
	var fresh []step
	for _, one := range stepsOf(pod, now) {
		if progress[one.phase] > reached {
			fresh = append(fresh, one)
		}
	}
	return fresh
}

// conditions are Ready first, then the history with the new steps, oldest first and bounded.
func conditions(vm *VirtualMachine, steps []step, ready verdict, now metav1.Time) []Condition {
	found := make([]Condition, 1, len(vm.Status.Conditions)+len(steps)+2)
	before := metav1.Time{}
	wanted := "False"
	if ready.ready {
		wanted = "True"
	}
	for _, condition := range vm.Status.Conditions {
		if strings.HasPrefix(condition.Type, "Phase") {
			found = append(found, condition)
		} else if condition.Type == "Ready" && condition.Status == wanted {
			before = condition.LastTransitionTime
		}
	}
	if before.IsZero() {
		before = now
	}
	found[0] = Condition{
		Type: "Ready", Status: wanted, LastTransitionTime: before, Reason: ready.reason, Message: ready.message,
	}
	if len(found) == 1 {
		steps = append([]step{{pending, vm.CreationTimestamp}}, steps...)
	}
	for _, one := range steps {
		last := found[len(found)-1]
		if last.Type == "Phase"+one.phase {
			continue
		}
		at := one.at
		if len(found) > 1 && last.LastTransitionTime.After(at.Time) {
			at = last.LastTransitionTime
		}
		found = append(found, Condition{
			Type: "Phase" + one.phase, Status: "True", LastTransitionTime: at,
			Reason: "TransitionedTo" + one.phase, Message: "VM transitioned to " + one.phase + " phase",
		})
	}
	if excess := len(found) - 1 - historyLimit; excess > 0 {
		found = append(found[:1], found[1+excess:]...)
	}
	return found
}

// wholeSeconds is a time in the API's precision.
func wholeSeconds(moment time.Time) metav1.Time {
	return metav1.NewTime(moment.Truncate(time.Second))
}
